"""A simulation as the judge of a capacity search: run at a rate, stopped as soon as it can no longer pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sarathi_plugin.load.summary import is_fluid
from sarathi_plugin.search.capacity import SHARE, Verdict
from sarathi_plugin.search.criteria import Fluid
from sarathi_plugin.simulate.run import simulate

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.search.criteria import Criterion
    from sarathi_plugin.search.tally import Tally
    from sarathi_plugin.simulate.book import Book, Entry
    from sarathi_plugin.simulate.run import Simulation, SimulationResult
    from sarathi_plugin.workload.trace import Trace

LOOK_EVERY = 32
"""Turns of the engine between two looks at the unfinished requests."""


def judge_simulation(
    wanted: Simulation,
    trace_at: Callable[[float], Trace],
    *,
    share: float = SHARE,
    criterion: Criterion | None = None,
    passed: Callable[[float, SimulationResult], None] | None = None,
) -> Callable[[float], Verdict]:
    """``judge(rate)`` for ``find_capacity``: simulates ``trace_at(rate)`` under otherwise the same conditions.

    criterion: fluid at ``share`` unless given. passed: told of every run that passed.
    """
    by = criterion or Fluid(share=share)

    def judge(rate: float) -> Verdict:
        trace = trace_at(rate)
        watch = EarlyStop(by.tally(trace, wanted.targets))
        result = simulate(replace(wanted, trace=trace), watch=watch)
        if not result.complete:
            tally = watch.tally
            return Verdict(rate, False, tally.best_share, None, tally.reason)
        verdict = by.verdict(rate, result.timelines)
        if verdict.passed and passed is not None:
            passed(rate, result)
        return verdict

    return judge


def failed_share(wanted: Simulation) -> float:
    """Share of requests that are not fluid in a whole run."""
    timelines = simulate(wanted).timelines
    return 1 - sum(map(is_fluid, timelines)) / len(timelines)


class EarlyStop:
    """A watch that stops a simulation once its tally says that it is lost."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self._turns = 0

    def __call__(self, book: Book, entry: Entry | None, now_ns: int) -> bool:
        """See ``simulate``. Of several replicas the unfinished requests of the one that turns: clocks differ."""
        if entry is not None:
            self.tally.ended(book.timeline(entry, now_ns))
            return True
        self._turns += 1
        if self._turns % LOOK_EVERY:
            return True
        return not self.tally.lost(book.unfinished(), now_ns)
