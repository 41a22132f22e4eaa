"""The units of the gap bench: the load up to which P99 TBT stays within D_d, and the figures of a run at a load."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from policies.work import first_guess
from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.load.summary import percentile_ns, summarise
from sarathi_plugin.search.capacity import LONGEST_DELAY_NS, Verdict, find_capacity
from sarathi_plugin.simulate.run import Simulation, simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.arms import Arm
    from policies.cells import Cell
    from sarathi_plugin.load.targets import Targets
    from sarathi_plugin.records import RequestTimeline
    from sarathi_plugin.simulate.book import Book, Entry
    from sarathi_plugin.workload.trace import Trace

LATE = 0.01
"""Share of gaps that may exceed the target: P99."""

RESOLUTION, STEP = 0.05, 1.3

LOOK_EVERY = 64
"""Turns of the engine between two looks at who has waited how long."""


@dataclass(frozen=True, slots=True)
class GapJob:
    """kind: the highest rate that keeps the gaps, or figures at ``load`` (requests per second, 0 in a search)."""

    kind: Literal["gap-capacity", "gap-figures"]
    cell: Cell
    arm: Arm
    seed: int
    requests: int
    rate: float
    """Where a search starts."""
    load: float = 0.0

    @property
    def file(self) -> str:
        """Its result's file name."""
        name = f"{self.kind}-{self.cell.name.replace('/', '_')}-{self.arm.name}-{self.seed}-{self.requests}"
        return f"{name}-{self.load:.4f}.json" if self.load else f"{name}.json"


def run(job: GapJob) -> dict[str, Any]:
    """Its result as plain data."""
    begin = time.process_time()
    found = capacity(job) if job.kind == "gap-capacity" else figures(simulated(job, job.load).timelines)
    return {**found, "cpu_s": round(time.process_time() - begin, 1)}


def simulated(job: GapJob, rate: float, *, stop: bool = False) -> Any:
    """One run at a rate. stop: end it as soon as it cannot hold any more."""
    cell = job.cell
    wanted = Simulation(
        profile=cell.profile,
        engine=job.arm.engine(cell),
        trace=cell.trace(rate, job.seed, job.requests, priority=job.arm.priority),
        targets=cell.targets(),
        seed=job.seed,
    )
    return simulate(wanted, watch=Hopeless(wanted.targets, wanted.trace) if stop else None)


def capacity(job: GapJob) -> dict[str, Any]:
    """The highest rate at which every class keeps its gaps and the median scheduling delay is at most 2 s."""

    def judge(rate: float) -> Verdict:
        result = simulated(job, rate, stop=True)
        if not result.complete:
            return Verdict(rate, passed=False, fluid_share=0.0, median_delay_ns=None, reason="stopped early")
        seen = figures(result.timelines)
        return Verdict(rate, seen["holds"], 0.0, None, "" if seen["holds"] else seen["broken"])

    start = job.rate or round(first_guess(job.cell), 4)
    found = find_capacity(
        judge, start=start, lowest=start / 64, highest=start * 64, resolution=RESOLUTION, step=STEP
    )
    return {"capacity": found.rate, "limit": found.limit, "runs": len(found.tried)}


def figures(timelines: Sequence[RequestTimeline]) -> dict[str, Any]:
    """P99 TBT over target of the worst class, per token over all tokens; longest gap; TTFT; whether all of it holds."""
    by_class: dict[str, list[RequestTimeline]] = {}
    for timeline in timelines:
        by_class.setdefault(timeline.slo_class, []).append(timeline)
    worst, longest_ns = 0.0, 0
    for mine in by_class.values():
        gaps = [gap for t in mine for gap in t.gaps_ns]
        longest_ns = max(longest_ns, *gaps, 0)
        p99 = percentile_ns(gaps, 100 * (1 - LATE))
        worst = max(worst, (p99 or 0) / mine[0].tbt_ns)
    waits = [t.scheduled_ns - t.arrival_ns for t in timelines if t.scheduled_ns is not None]
    delay = percentile_ns(waits, 50)
    summary = summarise(timelines)
    broken = ""
    if worst > 1:
        broken = "gaps"
    elif summary.errors:
        broken = f"{summary.errors} failed"
    elif delay is None or delay > LONGEST_DELAY_NS:
        broken = f"median delay {(delay or 0) / NS_PER_S:.1f} s"
    return {
        "holds": not broken,
        "broken": broken,
        "tbt_p99_over_target": round(worst, 4),
        "longest_gap_ms": round(longest_ns / NS_PER_MS, 2),
        "ttft_p50_ms": round((summary.ttft_p50_ns or 0) / NS_PER_MS, 2),
        "ttft_p99_ms": round((summary.ttft_p99_ns or 0) / NS_PER_MS, 2),
    }


class Hopeless:
    """A watch that stops a run that cannot hold any more, whatever comes.

    Then more gaps of a class are late than P99 allows, or more than half of all requests have waited over 2 s.
    """

    def __init__(self, targets: Targets, trace: Trace) -> None:
        default = targets.default.name
        totals: Counter[str] = Counter()
        for request in trace.requests:
            totals[request.slo_class or default] += request.output_tokens - 1
        # The percentile lies between two gaps: one more may be late before it is beyond the target.
        self._allowed = {name: LATE * count + 1 for name, count in totals.items()}
        self._half = len(trace.requests) / 2
        self._default = default
        self._late: Counter[str] = Counter()
        self._turns = 0

    def __call__(self, book: Book, entry: Entry | None, now_ns: int) -> bool:
        """See ``simulate``."""
        if entry is not None:
            name = entry.asked.slo_class or self._default
            self._late[name] += sum(b - a > entry.tbt_ns for a, b in pairwise(entry.token_ns))
            return self._late[name] <= self._allowed[name]
        self._turns += 1
        if self._turns % LOOK_EVERY:
            return True
        waited = (
            (now_ns if open_.scheduled_ns is None else open_.scheduled_ns) - open_.arrival_ns
            for open_ in book.entries.values()
        )
        return sum(wait > LONGEST_DELAY_NS for wait in waited) <= self._half


def at_load(job: GapJob, arm: Arm, seed: int, load: float) -> GapJob:
    """Figures of an arm at a load, in the cell of a search."""
    return replace(job, kind="gap-figures", arm=arm, seed=seed, rate=0.0, load=round(load, 4))
