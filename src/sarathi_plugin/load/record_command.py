"""``sarathi profile record`` behind its flags: a server that records itself, driven over a grid and by traffic."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.curve import served_model
from sarathi_plugin.load.grid import design_grid, drive_grid
from sarathi_plugin.load.server import ServerError, ServerSpec, serve
from sarathi_plugin.load.traffic import design_traffic, drive_traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAME = "profiled"


def record(
    model: str,
    out: Path,
    arguments: Sequence[str],
    *,
    max_streams: int,
    max_context: int | None,
    budget: int,
    traffic_s: float,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Serve ``model`` with vLLM's own decisions and our recorder, drive the grid, then traffic, stop; leaves ``out``.

    arguments: more of ``vllm serve``. traffic_s: about how long traffic comes, seconds; 0 for none. Raises
    ConfigError for bad input, ServerError when the server fails.
    """
    if out.suffixes[-2:] != [".jsonl", ".gz"]:
        raise ConfigError(f"Name the recording *.jsonl.gz, not {out.name!r}.")
    if out.exists():
        raise ConfigError(f"{out} exists; remove it or choose another --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with _log_file(say) as log:
        spec = ServerSpec(
            model,
            NAME,
            log,
            (
                "--scheduler", "vllm",
                "--max-num-batched-tokens", str(budget),
                "--no-enable-prefix-caching",
                "--sarathi-record", str(out.resolve()),
                *arguments,
            ),
        )  # fmt: skip
        say("starting the server")
        with serve(spec) as server:
            _, longest = served_model(server.url)
            context = min(max_context or longest // 2, longest // 2)
            cells = design_grid(
                max_streams=max_streams, max_context=context, budget=min(budget, longest // 2)
            )
            timelines = drive_grid(server.url, NAME, cells, np.random.default_rng(seed), note=say)
            if traffic_s:
                trace = design_traffic(cells, timelines, seconds=traffic_s, max_context=context, seed=seed)
                drive_traffic(server.url, NAME, trace, seed, note=say)
    say(f"{out}: recorded; next: sarathi profile fit {out}")


@contextlib.contextmanager
def _log_file(say: Callable[[str], None]) -> Iterator[Path]:
    """Where the server's log goes: somewhere temporary, which stays and is told when the server fails."""
    folder = Path(tempfile.mkdtemp(prefix="sarathi-profile-"))
    log = folder / "server.log"
    failed = False
    try:
        yield log
    except ServerError:
        failed = True
        say(f"the server's log is kept: {log}")
        raise
    finally:
        if not failed:
            shutil.rmtree(folder, ignore_errors=True)
