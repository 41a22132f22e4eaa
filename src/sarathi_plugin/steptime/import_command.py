"""``sarathi profile import`` behind its flags: operator tables in Vidur's format to a step-time profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from sarathi_plugin.config import ConfigError, explain
from sarathi_plugin.outputs import spare, writing
from sarathi_plugin.steptime.profile import ModelFacts, save_profile
from sarathi_plugin.steptime.vidur import import_tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run(
    tables: Path,
    facts: Path,
    hardware: str,
    memory_gb: float,
    attention: Path,
    all_reduce: Path | None,
    tensor_parallel: int,
    out: Path,
    *,
    say: Callable[[str], None],
) -> None:
    """Import and write. Raises ConfigError."""
    spare([path for path in (tables, facts, attention, all_reduce) if path is not None], out)
    try:
        model = ModelFacts.model_validate_json(facts.read_bytes())
    except OSError as error:
        raise ConfigError(f"Cannot read {facts}: {error.strerror or error}.") from error
    except ValidationError as error:
        raise ConfigError(explain(error, str(facts))) from error
    profile = import_tables(
        tables,
        name=out.stem,
        model=model,
        hardware=hardware,
        memory_bytes=round(memory_gb * 1e9),
        attention=attention,
        tensor_parallel=tensor_parallel,
        all_reduce_csv=all_reduce,
    )
    with writing(out):
        save_profile(profile, out)
    say(f"{out}: {profile.provenance.fitted}; use it with: sarathi simulate WORKLOAD --profile {out}")
