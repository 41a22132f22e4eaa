"""``sarathi loadtest`` behind its flags."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import locust  # noqa: F401  (first: it makes sockets cooperative, before anything opens one)

from sarathi_plugin.config import ConfigError
from sarathi_plugin.loadtest.console import Display, closing
from sarathi_plugin.loadtest.live import Live
from sarathi_plugin.loadtest.metrics import serve_metrics
from sarathi_plugin.loadtest.report import report
from sarathi_plugin.loadtest.result import parse_thresholds
from sarathi_plugin.loadtest.runner import run
from sarathi_plugin.loadtest.setup import Wanted, prepare
from sarathi_plugin.telemetry.parquet import write_timelines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sarathi_plugin.loadtest.live import Point
    from sarathi_plugin.loadtest.result import Result


def loadtest(
    wanted: Wanted, fail_if: Sequence[str], processes: int, out: Path, metrics_port: int | None
) -> int:
    """Run a load test, write its results to ``out``, say how it went. Raises ConfigError for bad input."""
    thresholds = parse_thresholds(fail_if)
    _make(out)
    setup = prepare(wanted)
    live = Live()
    display = Display()
    display.console.print(
        f"{setup.served.model} at {setup.served.url}: {len(setup.trace.requests)} requests of {wanted.workload} over "
        f"{setup.trace.requests[-1].offset_ns / 1e9:.0f} s, {processes} process(es)",
        soft_wrap=True,
    )
    with serve_metrics(live, metrics_port), display:
        result = run(setup, thresholds, processes, display, live)
    write(out, result, live.course)
    for line in closing(result):
        display.console.print(line, soft_wrap=True, markup=False)
    display.console.print(f"{out / 'report.html'}, summary.json, timelines.parquet: {result.verdict}")
    return result.exit_code


def write(out: Path, result: Result, course: Sequence[Point]) -> None:
    """Leave report.html, summary.json and timelines.parquet in a folder. Raises ConfigError when it cannot."""
    try:
        write_timelines(out / "timelines.parquet", result.timelines)
        (out / "summary.json").write_text(json.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
        (out / "report.html").write_text(report(result, course), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"Cannot write to {out}: {error.strerror or error}.") from error


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"Cannot make the folder {out}: {error.strerror or error}.") from error
