"""``sarathi trace export`` behind its flags."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError
from sarathi_plugin.outputs import spare, writing
from sarathi_plugin.telemetry.chrome_trace import to_trace
from sarathi_plugin.telemetry.journal import Arrived
from sarathi_plugin.telemetry.recording import read_recording, tell_cut_off

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def export(
    recording: Path, out: Path | None, *, say: Callable[[str], None], warn: Callable[[str], None]
) -> None:
    """Write the trace, compressed when its name ends in .gz. warn: told what is wrong with the file.

    Raises ConfigError.
    """
    target = out if out is not None else recording.with_name(recording.name.split(".")[0] + ".trace.json.gz")
    spare([recording], target)
    if not target.name.endswith((".json", ".json.gz")):
        raise ConfigError(f"Name the trace *.json or *.json.gz, not {target.name!r}.")
    found = read_recording(recording)
    tell_cut_off(recording, found, warn)
    if not (found.steps or found.timelines):
        raise ConfigError(f"{recording} holds no step and no request: there is nothing to draw.")
    data = json.dumps(to_trace(found), separators=(",", ":")).encode()
    with writing(target):
        target.write_bytes(gzip.compress(data, mtime=0) if target.suffix == ".gz" else data)
    ended = {timeline.request_id for timeline in found.timelines}
    arrived = {event.request_id for event in found.events if isinstance(event, Arrived)}
    open_ = len(arrived - ended)
    left = f"; {open_} requests had not ended and are left out" if open_ else ""
    say(f"wrote {target}: {len(found.steps)} steps, {len(ended)} requests{left}")
    say("open it at https://ui.perfetto.dev (the file stays in the browser) or in chrome://tracing")
