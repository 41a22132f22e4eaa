"""The predicted half: a profile from the calibration runs, the test runs simulated from their arrivals alone."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fidelity.live import CALIBRATION, POLICIES, TESTS, Run
from sarathi_plugin.config import load_curve
from sarathi_plugin.load.summary import is_fluid
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.plugins import build_plugin_manager, make_slo_classes
from sarathi_plugin.simulate.replay import engine_of
from sarathi_plugin.simulate.run import Simulation, simulate
from sarathi_plugin.steptime.profile import StepTimeProfile, save_profile
from sarathi_plugin.telemetry.fit_command import fit_recordings
from sarathi_plugin.telemetry.recording import Recording, read_recording
from sarathi_plugin.workload.trace import Trace, TraceRequest

if TYPE_CHECKING:
    from pathlib import Path

    from sarathi_plugin.records import RequestTimeline

SEEDS = range(8)
KERNEL_LIMIT = 0.05
"""A run around which the reference kernel moved by more is left out, by this rule alone."""

METRICS = (
    "TTFT P50", "TTFT P90", "TTFT P99", "TBT P50", "TBT P90", "TBT P99", "E2E P50", "E2E P90", "tokens/s", "fluid",
)  # fmt: skip


def part_of(recording: Recording, run: Run) -> Recording:
    """The stretch of a recording that belongs to one run."""
    inside = lambda ns: run.start_ns <= ns <= run.end_ns + 10**9  # noqa: E731
    return replace(
        recording,
        steps=[step for step in recording.steps if inside(step.schedule_ns)],
        timelines=[t for t in recording.timelines if inside(t.arrival_ns)],
        events=[e for e in recording.events if inside(getattr(e, "now_ns", -1))],
    )


def figures(timelines: list[RequestTimeline]) -> dict[str, float]:
    """What is compared, seconds."""
    first = [t.ttft_ns / 1e9 for t in timelines if t.ttft_ns is not None]
    gaps = [gap / 1e9 for t in timelines for gap in t.gaps_ns]
    whole = [(t.end_ns - t.arrival_ns) / 1e9 for t in timelines]
    span = (max(t.end_ns for t in timelines) - min(t.arrival_ns for t in timelines)) / 1e9
    found = {f"TTFT P{q}": float(np.percentile(first, q)) for q in (50, 90, 99)}
    found |= {f"TBT P{q}": float(np.percentile(gaps, q)) for q in (50, 90, 99)}
    found |= {f"E2E P{q}": float(np.percentile(whole, q)) for q in (50, 90)}
    found["tokens/s"] = sum(t.prompt_tokens + len(t.token_ns) for t in timelines) / span
    found["fluid"] = sum(map(is_fluid, timelines)) / len(timelines)
    return found


def trace_of(timelines: list[RequestTimeline]) -> Trace:
    """The arrivals of a run, and how long its requests were: all that a prediction may know."""
    ordered = sorted(timelines, key=lambda t: t.arrival_ns)
    start = ordered[0].arrival_ns
    requests = [
        TraceRequest(
            request_id=t.request_id,
            offset_ns=t.arrival_ns - start,
            prompt_tokens=t.prompt_tokens,
            output_tokens=len(t.token_ns),
        )
        for t in ordered
    ]
    return Trace("recorded arrivals", tuple(requests))


def predict(
    recording: Recording, timelines: list[RequestTimeline], profile: StepTimeProfile, path: Path
) -> dict[str, float]:
    """Median over seeds of the simulated figures. path: of the profile, from which the policy's own model starts."""
    spec, _ = engine_of(recording)
    settings = {**spec.sarathi, "step_time_profile": str(path)}
    spec = spec.model_copy(update={"sarathi": settings})
    plugin = spec.settings()
    classes = make_slo_classes(plugin, build_plugin_manager())
    targets = Targets(classes[plugin.default_class], load_curve(plugin.prefill_curve), classes)
    trace = trace_of(timelines)
    found = [
        figures(
            simulate(
                Simulation(profile=profile, engine=spec, trace=trace, targets=targets, seed=seed)
            ).timelines
        )
        for seed in SEEDS
    ]
    return {name: statistics.median(one[name] for one in found) for name in METRICS}


def compare(out: Path, limit: float = KERNEL_LIMIT) -> dict[str, Any]:
    """Every test run against its prediction, and live runs against each other. limit: of the kernel's shift."""
    runs = [Run(**data) for data in json.loads((out / "runs.json").read_text())]
    left_out = [run for run in runs if run.kernel_shift > limit or run.failed]
    kept = [run for run in runs if run not in left_out]
    recordings = {policy: read_recording(out / f"{policy}.jsonl.gz") for policy in POLICIES}
    real: dict[str, dict[int, dict[str, float]]] = {}
    predicted: dict[str, dict[int, dict[str, float]]] = {}
    fits = {}
    for repeat in sorted({run.repeat for run in kept}):
        calibration = [run for run in kept if run.repeat == repeat and run.traffic == CALIBRATION.name]
        if not calibration:
            continue
        profile, fit = fit_recordings(
            [part_of(recordings[run.policy], run) for run in calibration],
            name=f"repeat-{repeat}",
            hardware="this machine",
        )
        path = out / f"profile-{repeat}.json"
        save_profile(profile, path)
        fits[repeat] = {"runs": len(calibration), "held_out": str(fit.held_out)}
        for run in kept:
            if run.repeat != repeat or run.traffic == CALIBRATION.name:
                continue
            cell = f"{run.traffic} {run.policy}"
            part = part_of(recordings[run.policy], run)
            real.setdefault(cell, {})[repeat] = figures(part.timelines)
            predicted.setdefault(cell, {})[repeat] = predict(
                recordings[run.policy], part.timelines, profile, path
            )
    return {
        "cells": {cell: row_of(real[cell], predicted[cell]) for cell in sorted(real)},
        "left_out": [f"{run.traffic} {run.policy} {run.repeat}: {run.kernel_shift:.1%}" for run in left_out],
        "rates": {t.name: t.rate for t in (CALIBRATION, *TESTS)},
        "fits": fits,
        "limit": limit,
    }


def row_of(real: dict[int, dict[str, float]], predicted: dict[int, dict[str, float]]) -> dict[str, Any]:
    """One cell: medians over repeats, relative errors, and the noise floor (median over pairs of repeats)."""
    found: dict[str, Any] = {"repeats": len(real)}
    for name in METRICS:
        live = statistics.median(one[name] for one in real.values())
        told = statistics.median(one[name] for one in predicted.values())
        values = [one[name] for one in real.values()]
        pairs = [abs(a / b - 1) for i, a in enumerate(values) for b in values[i + 1 :] if b]
        found[name] = {
            "live": round(live, 5),
            "predicted": round(told, 5),
            "error": round(told / live - 1, 4) if live else None,
            "noise": round(statistics.median(pairs), 4) if pairs else None,
        }
    return found


def markdown(summary: dict[str, Any]) -> str:
    """The table for people."""
    lines = ["| cell | " + " | ".join(METRICS) + " |", "| --- |" + " --- |" * len(METRICS)]
    errors: list[float] = []
    noises: list[float] = []
    for cell, row in summary["cells"].items():
        parts = []
        for name in METRICS:
            one = row[name]
            if one["error"] is None:
                parts.append("-")
                continue
            errors.append(abs(one["error"]))
            noise = one["noise"]
            if noise is not None:
                noises.append(noise)
            parts.append(
                f"{one['live']:.4g} {one['error']:+.1%}" + (f" ({noise:.1%})" if noise is not None else "")
            )
        lines.append(f"| {cell} | " + " | ".join(parts) + " |")
    if not errors:
        return "Every run was left out: the machine was not quiet enough.\n"
    floor = (
        f"median {statistics.median(noises):.1%}, worst {max(noises):.1%}" if noises else "one repeat only"
    )
    lines += [
        "",
        "Each entry: the live value (median of repeats), the prediction's error, in brackets the difference of two "
        "live runs of the same requests (median over pairs).",
        "",
        f"Median absolute error {statistics.median(errors):.1%}, worst {max(errors):.1%}; live against live: {floor}. "
        f"Runs left out because the reference kernel moved by more than {summary['limit']:.0%} or a request failed: "
        f"{'; '.join(summary['left_out']) or 'none'}.",
    ]
    return "\n".join(lines) + "\n"
