"""``sarathi loadtest`` behind its flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import locust  # noqa: F401  (first: it makes sockets cooperative, before anything opens one)

from sarathi_plugin.loadtest.console import Display, closing
from sarathi_plugin.loadtest.course import write
from sarathi_plugin.loadtest.live import Live
from sarathi_plugin.loadtest.metrics import serve_metrics
from sarathi_plugin.loadtest.result import parse_thresholds
from sarathi_plugin.loadtest.runner import run
from sarathi_plugin.loadtest.setup import Setup, Wanted, prepare
from sarathi_plugin.outputs import make_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Where(NamedTuple):
    """Where a run runs and what it leaves: folder of results, processes, ports on loopback (None: not served)."""

    out: Path
    processes: int = 1
    metrics_port: int | None = None
    web_port: int | None = None


def loadtest(wanted: Wanted, fail_if: Sequence[str], where: Where) -> int:
    """Run a load test, write its results, say how it went. Raises ConfigError for bad input."""
    thresholds = parse_thresholds(fail_if)
    make_folder(where.out)
    setup = prepare(wanted)
    live = Live()
    display = Display()
    display.console.print(
        f"{what(setup)}, {where.processes} {'process' if where.processes == 1 else 'processes'}",
        soft_wrap=True,
    )
    if where.web_port is not None:
        display.console.print(f"http://127.0.0.1:{where.web_port}/?tab=fluidity", soft_wrap=True)
    with serve_metrics(live, where.metrics_port), display:
        result = run(setup, thresholds, where, display, live)
    for line in closing(result):
        display.console.print(line, soft_wrap=True, markup=False)
    write(where.out, result, live.course)
    display.console.print(
        f"{where.out / 'report.html'}, summary.json, timelines.parquet: {result.verdict}", soft_wrap=True
    )
    return result.exit_code


def what(setup: Setup) -> str:
    """A run in a line."""
    head = f"{setup.served.model} at {setup.served.url}:"
    if setup.crowd is not None:
        people = f"{setup.crowd.users} users who think {setup.crowd.think_s:g} s"
        return f"{head} {setup.wanted.workload} over {setup.crowd.duration_s:g} s, {people}"
    requests = setup.trace.requests
    return f"{head} {len(requests)} requests of {setup.wanted.workload} over {requests[-1].offset_ns / 1e9:.0f} s"
