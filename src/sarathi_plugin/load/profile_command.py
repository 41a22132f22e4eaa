"""``sarathi profile prefill`` behind its flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.address import parts_of
from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.curve import curve_lengths, measure_curve, probe, served_model, write_curve
from sarathi_plugin.load.machine import hardware as this_machine
from sarathi_plugin.outputs import check_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def prefill(
    url: str,
    out: Path,
    longest: int | None,
    repeats: int,
    hardware: str | None,
    seed: int,
    *,
    say: Callable[[str], None],
) -> None:
    """Measure and write the prefill curve of the server at ``url``.

    longest: longest prompt in tokens, the model's length when None. Raises ConfigError for bad input, ServerError
    when the server fails a request.
    """
    parts = parts_of(url)
    if parts is None:
        raise ConfigError(f"Give the server's address as http://HOST:PORT, not {url!r}.")
    check_file(out)  # before minutes of measuring
    name, limit = served_model(url)
    if longest is not None and longest >= limit:
        raise ConfigError(f"The model {name} takes prompts of up to {limit - 1} tokens, not {longest}.")
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    curve = measure_curve(
        probe(url, name, seed),
        curve_lengths(longest or limit - 1),
        repeats=repeats,
        model=name,
        hardware=hardware if hardware is not None else this_machine() if local else "",
        note=say,
    )
    write_curve(out, curve)
    say(
        f"{out}: {curve.c0_s:.4g} s + {curve.c1_s_per_token:.4g} s x n + {curve.c2_s_per_token2:.4g} s x n^2; "
        f"use it with: prefill_curve: {out}"
    )
