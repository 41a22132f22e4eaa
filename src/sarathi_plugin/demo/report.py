"""The demo's result in words and numbers: the table, one answer, where the files are."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from sarathi_plugin.core import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sarathi_plugin.demo.run import ArmResult, Demo, Machine
    from sarathi_plugin.load.summary import LoadSummary

LAG_LIMIT_NS = 50 * NS_PER_MS
"""A client that sends later than this is busy itself, and its figures say so."""


def duration(ns: int | None) -> str:
    """A time as people read it: three digits, ms below a second."""
    if ns is None:
        return "-"
    if ns < NS_PER_S:
        return f"{ns / NS_PER_MS:.0f} ms"
    return f"{ns / NS_PER_S:.{2 if ns < 10 * NS_PER_S else 1}f} s"


ROWS: tuple[tuple[str, Callable[[LoadSummary], str]], ...] = (
    ("longest freeze of a stream", lambda s: duration(s.longest_freeze_ns)),
    ("time between tokens, P50", lambda s: duration(s.tbt_p50_ns)),
    ("time between tokens, P99", lambda s: duration(s.tbt_p99_ns)),
    ("fluidity-index (deadlines met)", lambda s: f"{s.fluidity_index:.3f}"),
    ("requests with fluidity >= 0.9", lambda s: f"{s.fluid_share:.0%}"),
    ("time to first token, P50", lambda s: duration(s.ttft_p50_ns)),
    ("time to first token, P99", lambda s: duration(s.ttft_p99_ns)),
    ("tokens per second (prompt + output)", lambda s: f"{s.tokens_per_s:.0f}"),
    ("requests, errors", lambda s: f"{s.requests}, {s.errors}"),
)


def table(results: Sequence[ArmResult]) -> Table:
    """Both arms side by side."""
    out = Table(title="The same load on both", title_justify="left")
    out.add_column("")
    for result in results:
        out.add_column(result.arm.title, justify="right")
    for name, show in ROWS:
        out.add_row(name, *(show(result.summary) for result in results))
    return out


def warnings(results: Sequence[ArmResult]) -> list[str]:
    """What makes these figures doubtful, one sentence each."""
    found = []
    for result in results:
        lag = result.run.dispatch_lag_p99_ns
        if lag > LAG_LIMIT_NS:
            found.append(
                f"{result.arm.title}: the client itself sent {duration(lag)} late; this run is doubtful."
            )
        errors = [t.error for t in result.run.timelines if t.status != "finished"]
        if errors:
            found.append(f"{result.arm.title}: {len(errors)} requests failed; the first: {errors[0]}.")
    return found


def as_json(demo: Demo, machine: Machine) -> dict[str, Any]:
    """All figures of a demo, times in nanoseconds."""
    return {
        "model": demo.model.title,
        "seed": demo.seed,
        "decode_step_s": machine.decode_step_s,
        "tbt_ns": machine.slo.tbt_ns,
        "ttft_slack_ns": machine.slo.ttft_slack_ns,
        "prefill_curve": machine.curve.model_dump(mode="json"),
        "arms": [
            {
                "name": result.arm.name,
                "flags": list(result.arm.flags),
                "dispatch_lag_p99_ns": result.run.dispatch_lag_p99_ns,
                **asdict(result.summary),
            }
            for result in demo.results
        ],
        "answer": demo.answer,
    }


def write_json(path: Path, demo: Demo, machine: Machine) -> None:
    """Write all figures."""
    path.write_text(json.dumps(as_json(demo, machine), indent=1) + "\n", encoding="utf-8")
