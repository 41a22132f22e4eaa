"""A simulation as the judge of a capacity search: run at a rate, stopped as soon as the share is lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from sarathi_plugin.deadlines import FLUID_THRESHOLD
from sarathi_plugin.load.summary import is_fluid
from sarathi_plugin.search.capacity import SHARE, FailureCount, Verdict, judge_timelines
from sarathi_plugin.simulate.run import simulate

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.simulate.book import Book, Entry
    from sarathi_plugin.simulate.run import Simulation
    from sarathi_plugin.workload.trace import Trace

LOOK_EVERY = 32
"""Turns of the engine between two looks at the unfinished requests."""


def judge_simulation(
    wanted: Simulation, trace_at: Callable[[float], Trace], *, share: float = SHARE
) -> Callable[[float], Verdict]:
    """``judge(rate)`` for ``find_capacity``: simulates ``trace_at(rate)`` under otherwise the same conditions."""

    def judge(rate: float) -> Verdict:
        trace = trace_at(rate)
        watch = EarlyStop(wanted, trace, share)
        result = simulate(replace(wanted, trace=trace), watch=watch)
        if result.complete:
            return judge_timelines(rate, result.timelines, share=share)
        return Verdict(
            rate, passed=False, fluid_share=watch.best_share, median_delay_ns=None, reason=watch.reason
        )

    return judge


def failed_share(wanted: Simulation) -> float:
    """Share of requests that are not fluid in a whole run."""
    timelines = simulate(wanted).timelines
    return 1 - sum(map(is_fluid, timelines)) / len(timelines)


class EarlyStop:
    """A watch that stops a simulation once more requests have failed than may.

    Counted are those that ended, and those whose first token is so late that even an answer on time from now on
    leaves them below the threshold. best_share: what is the most that could still be fluid when it stopped.
    """

    def __init__(self, wanted: Simulation, trace: Trace, share: float) -> None:
        default = wanted.targets.default.name
        names = [request.slo_class or default for request in trace.requests]
        self._count = FailureCount(names, share=share)
        self._totals = Counter(names)
        self._default = default
        self._turns = 0
        self._failed: Counter[str] = Counter()
        self.best_share = 1.0
        self.reason = ""

    def __call__(self, book: Book, entry: Entry | None, now_ns: int) -> bool:
        """See ``simulate``."""
        if entry is not None:
            timeline = book.timeline(entry, now_ns)
            if not is_fluid(timeline):
                self._count.failed(timeline.slo_class)
                self._failed[timeline.slo_class] += 1
            return True
        self._turns += 1
        if self._turns % LOOK_EVERY:
            return True
        hopeless = Counter(
            open_.asked.slo_class or self._default
            for open_ in book.unfinished()
            if cannot_be_fluid(open_, now_ns)
        )
        if not self._count.lost(hopeless):
            return True
        lost = self._failed + hopeless
        worst = max(lost, key=lambda name: lost[name] / self._totals[name])
        self.best_share = 1 - lost[worst] / self._totals[worst]
        self.reason = f"{worst}: at most {self.best_share:.1%} fluid"
        return False


def cannot_be_fluid(entry: Entry, now_ns: int) -> bool:
    """Whether a request without a first token has already missed too much.

    With m deadlines missed and all of its o tokens on time from now on, its index is o / (o + m).
    """
    if entry.token_ns:
        return False
    late = now_ns - entry.arrival_ns - entry.first_ns
    if late <= 0:
        return False
    missed = late // entry.tbt_ns + 1
    tokens = entry.asked.output_tokens
    return (tokens - 1) / (tokens - 1 + missed) < FLUID_THRESHOLD if tokens > 1 else True
