"""``sarathi profile fit`` behind its flags: from recordings to a step-time profile."""

from __future__ import annotations

import bisect
import os
import platform
import statistics
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sarathi_plugin.config import ConfigError, explain
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.outputs import spare, writing
from sarathi_plugin.steptime.calibration import FitReport, report_text, write_report
from sarathi_plugin.steptime.fit import fit_profile
from sarathi_plugin.steptime.profile import ModelFacts, StepTimeProfile, save_profile
from sarathi_plugin.telemetry.journal import Arrived
from sarathi_plugin.telemetry.recording import Recording, read_recording, tell_cut_off
from sarathi_plugin.telemetry.traffic import under_traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


def fit(
    recordings: Sequence[Path],
    out: Path,
    *,
    name: str | None,
    hardware: str | None,
    report: Path | None,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Fit, write, and say how well it fits. warn: told what is wrong with a file. Raises ConfigError."""
    spare(recordings, out)
    where = (
        hardware
        if hardware is not None
        else f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    )
    runs = [read_recording(path) for path in recordings]
    for path, run in zip(recordings, runs, strict=True):
        tell_cut_off(path, run, warn)
    profile, found = fit_recordings(runs, name=name or out.stem, hardware=where)
    with writing(out):
        save_profile(profile, out)
    say(report_text(found))
    for path in write_report(found, report) if report is not None else ():
        say(f"wrote {path}")
    say(f"wrote {out}; use it with: sarathi simulate WORKLOAD --profile {out}")


def fit_recordings(
    recordings: Sequence[Recording], *, name: str, hardware: str, source: str = ""
) -> tuple[StepTimeProfile, FitReport]:
    """The profile of the engine that made these recordings. Raises ConfigError, also when they are of several."""
    if any(not recording.head for recording in recordings):
        raise ConfigError(
            "A recording has no head: it is empty, or not whole; leave that file out, or record it again."
        )
    heads = [recording.head for recording in recordings]
    if any(head.get("model") != heads[0].get("model") for head in heads):
        raise ConfigError("The recordings are of different models; a profile is of one.")
    if not isinstance(heads[0].get("model"), dict):
        raise ConfigError("The recording does not say its model: record it again with this version.")
    try:
        model = ModelFacts.model_validate(heads[0]["model"])
    except ValidationError as error:
        raise ConfigError(explain(error, "the head of the recording")) from error
    engine = heads[0].get("engine")
    if not isinstance(engine, dict):
        raise ConfigError(
            "The recording does not say with which engine arguments it was made; record it again."
        )
    kv_bytes = kv_bytes_of(model, engine)
    profile, found = fit_profile(
        [step for recording in recordings for step in recording.steps],
        name=name,
        model=model,
        hardware=hardware,
        memory_bytes=max(1, kv_bytes),
        vllm_version=heads[0]["vllm_version"],
        source=source or f"{len(recordings)} recorded run(s) of {model.name}",
        tensor_parallel=engine["tensor_parallel_size"],
        frontend_s=round(frontend_s(recordings), 6),
        traffic=[busy for recording in recordings for busy in under_traffic(recording)],
    )
    return profile.model_copy(update={"kv_cache_bytes": max(1, kv_bytes)}), found


def kv_bytes_of(model: ModelFacts, engine: Mapping[str, Any]) -> int:
    """KV-cache memory of each device: its share of heads and layers, for all blocks."""
    kv_heads = max(1, model.kv_heads // engine["tensor_parallel_size"])
    layers = -(-model.layers // engine.get("pipeline_parallel_size", 1))
    scalars = 2 * layers * kv_heads * model.head_dim
    return int(scalars * model.kv_scalar_bytes * engine["num_gpu_blocks_override"] * engine["block_size"])


def frontend_s(recordings: Sequence[Recording]) -> float:
    """Time from a request's arrival at the server to the engine's queue, seconds.

    The median over those that met an engine at rest: the others waited for a step to end, which is no time of the front
    end. Without any such request the least wait.
    """
    at_rest, all_waits = [], []
    for recording in recordings:
        begins = [step.start_ns for step in recording.steps]
        for event in recording.events:
            if isinstance(event, Arrived):
                wait_s = event.wall_s - event.arrival_s
                all_waits.append(wait_s)
                before = bisect.bisect_left(begins, event.now_ns)
                if not before or recording.steps[before - 1].end_ns <= event.now_ns - wait_s * NS_PER_S:
                    at_rest.append(wait_s)
    if at_rest:
        return max(0.0, statistics.median(at_rest))
    return max(0.0, min(all_waits, default=0.0))
