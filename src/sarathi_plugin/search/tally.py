"""What is lost while a run goes on: tells when it can no longer pass, so that nobody waits for its end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from sarathi_plugin.deadlines import FLUID_THRESHOLD, overdue_periods
from sarathi_plugin.load.summary import is_fluid
from sarathi_plugin.search.capacity import FailureCount, late_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sarathi_plugin.load.targets import Targets
    from sarathi_plugin.records import RequestTimeline
    from sarathi_plugin.search.criteria import Condition
    from sarathi_plugin.simulate.book import Entry
    from sarathi_plugin.workload.trace import Trace


class Tally(Protocol):
    """Counts what is lost. reason: in words, once ``lost``; best_share: the most that could still be fluid."""

    reason: str
    best_share: float

    def ended(self, timeline: RequestTimeline) -> bool:
        """A request has ended; whether it brought the run nearer to its loss."""

    def lost(self, unfinished: Iterable[Entry], now_ns: int) -> bool:
        """Whether the run cannot pass any more, given the requests that arrived and have not ended."""


class FluidTally:
    """More requests of a class are not fluid than may be.

    Counted are those that ended, and those whose first token is so late that even an answer on time from now on
    leaves them below the threshold.
    """

    def __init__(self, trace: Trace, targets: Targets, share: float) -> None:
        self._default = targets.default.name
        names = [request.slo_class or self._default for request in trace.requests]
        self._count = FailureCount(names, share=share)
        self._totals = Counter(names)
        self._failed: Counter[str] = Counter()
        self._first: Counter[str] = Counter()
        self.best_share = 1.0
        self.reason = ""

    def ended(self, timeline: RequestTimeline) -> bool:
        """Count it unless it is fluid."""
        if is_fluid(timeline):
            return False
        self._count.failed(timeline.slo_class)
        self._failed[timeline.slo_class] += 1
        self._first[timeline.slo_class] += late_first(timeline)
        return True

    def lost(self, unfinished: Iterable[Entry], now_ns: int) -> bool:
        """By the worst class."""
        hopeless = Counter(
            entry.asked.slo_class or self._default for entry in unfinished if cannot_be_fluid(entry, now_ns)
        )
        if not self._count.lost(hopeless):
            return False
        lost = self._failed + hopeless
        worst = max(lost, key=lambda name: lost[name] / self._totals[name])
        self.best_share = 1 - lost[worst] / self._totals[worst]
        early = self._first[worst] + hopeless[worst]
        part = "first tokens late" if 2 * early >= lost[worst] else "later tokens late"
        self.reason = f"{worst}: at most {self.best_share:.1%} fluid, {part}"
        return True


class AllLost:
    """Lost once every one of several tallies is; in the words of the first."""

    def __init__(self, *tallies: Tally) -> None:
        self._tallies = tallies
        self.reason = ""
        self.best_share = 1.0

    def ended(self, timeline: RequestTimeline) -> bool:
        """Tell all of them."""
        nearer = [tally.ended(timeline) for tally in self._tallies]
        return any(nearer)

    def lost(self, unfinished: Iterable[Entry], now_ns: int) -> bool:
        """By all of them."""
        open_ = list(unfinished)
        if not all(tally.lost(open_, now_ns) for tally in self._tallies):
            return False
        self.reason = self._tallies[0].reason
        self.best_share = min(tally.best_share for tally in self._tallies)
        return True


def cannot_be_fluid(entry: Entry, now_ns: int) -> bool:
    """Whether a request without a first token has already missed too much.

    With m deadlines missed and all of its o tokens on time from now on, its index is (o - 1) / (o - 1 + m).
    """
    if entry.token_ns:
        return False
    missed = overdue_periods(now_ns, entry.arrival_ns + entry.first_ns, entry.tbt_ns)
    if not missed:
        return False
    tokens = entry.asked.output_tokens
    return (tokens - 1) / (tokens - 1 + missed) < FLUID_THRESHOLD if tokens > 1 else True


class QuantileTally:
    """More values lie beyond a bound than its quantile leaves room for.

    The quantile lies between two values, so one more than its share may be beyond the bound. Requests still waiting for
    their first token count for the TTFT and the scheduling delay they have by now.
    """

    def __init__(self, trace: Trace, conditions: Sequence[Condition]) -> None:
        self._rows = [
            (condition, (1 - condition.quantile) * condition.population(trace) + 1)
            for condition in conditions
        ]
        self._beyond = [0] * len(self._rows)
        self.best_share = 0.0
        self.reason = ""

    def ended(self, timeline: RequestTimeline) -> bool:
        """Count its values beyond their bounds."""
        before = sum(self._beyond)
        for number, (condition, _) in enumerate(self._rows):
            bound = condition.bound
            self._beyond[number] += sum(value > bound for value in condition.values_of(timeline))
        return sum(self._beyond) > before

    def lost(self, unfinished: Iterable[Entry], now_ns: int) -> bool:
        """By the first condition that is lost."""
        open_ = list(unfinished)
        for number, (condition, allowed) in enumerate(self._rows):
            waiting = sum(_waits_beyond(condition, entry, now_ns) for entry in open_)
            beyond = self._beyond[number] + waiting
            if beyond > allowed:
                self.reason = (
                    f"P{100 * condition.quantile:g} {condition.quantity} more than {condition.limit:g}: {beyond} "
                    f"values beyond it, {allowed:.0f} allowed"
                )
                return True
        return False


def _waits_beyond(condition: Condition, entry: Entry, now_ns: int) -> bool:
    """Whether an unfinished request is already beyond the bound."""
    if condition.quantity == "TTFT":
        first = entry.token_ns[0] if entry.token_ns else now_ns
        return first - entry.arrival_ns > condition.bound
    if condition.quantity == "scheduling delay":
        begun = now_ns if entry.scheduled_ns is None else entry.scheduled_ns
        return begun - entry.arrival_ns > condition.bound
    return False
