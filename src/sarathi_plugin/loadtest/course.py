"""The course of a run, whoever started it: live figures while it lasts, results on disk at its end."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from sarathi_plugin.loadtest.report import report
from sarathi_plugin.loadtest.result import Result, conclude
from sarathi_plugin.outputs import writing
from sarathi_plugin.telemetry.parquet import write_timelines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sarathi_plugin.loadtest.live import Live, Point
    from sarathi_plugin.loadtest.master import Master
    from sarathi_plugin.loadtest.thresholds import Threshold

TICK_S = 1.0
STOP_WAIT_S = 10.0


def follow(master: Master, live: Live, show: Callable[[float], None] = lambda _: None) -> None:
    """Extend the course every second until the run is over; when it was stopped, no longer than workers may take.

    show: called every second with the seconds since the start.
    """
    stopped_s = 0.0
    while not master.finished.wait(TICK_S):
        at_s = (time.monotonic_ns() - master.start_ns) / 1e9 if master.start_ns else 0.0
        live.overdue = master.overdue
        live.tick(at_s)
        show(at_s)
        if master.stopped:
            stopped_s += TICK_S
            if stopped_s > STOP_WAIT_S:
                return
    live.overdue = master.overdue
    if master.start_ns:
        live.tick((time.monotonic_ns() - master.start_ns) / 1e9)


def sum_up(master: Master, thresholds: Sequence[Threshold]) -> Result:
    """What came of the run that the master has just ended."""
    assert master.setup is not None  # noqa: S101  (a run has begun)
    return conclude(
        master.setup,
        master.timelines,
        master.asked,
        master.clients,
        thresholds,
        stopped=master.stopped,
        lost_workers=master.lost_workers,
    )


def write(out: Path, result: Result, course: Sequence[Point]) -> None:
    """Leave report.html, summary.json and timelines.parquet in a folder. Raises ConfigError when it cannot."""
    with writing(out):
        write_timelines(out / "timelines.parquet", result.timelines)
        (out / "summary.json").write_text(json.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
        (out / "report.html").write_text(report(result, course), encoding="utf-8")
