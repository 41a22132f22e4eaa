"""Fluid capacity: the highest arrival rate at which nearly every request stays fluid. By bracketing and bisection.

Definition: at least 99 % of the requests (of every SLO class; one that failed counts against) have a fluidity-index of
at least 0.9, and the median scheduling delay is at most 2 s. The delay limit is Sarathi-Serve's (arXiv 2403.02310,
section 5); the share and the index are Etalon's (arXiv 2407.07000, section 5).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.deadlines import overdue_periods
from sarathi_plugin.load.summary import fluid_shares, is_fluid, percentile_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sarathi_plugin.records import RequestTimeline

SHARE = 0.99
LONGEST_DELAY_NS = 2 * NS_PER_S
STEP = 1.3
"""Factor between rates while a bracket is sought, when nothing is known of where it lies."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One run at one rate. fluid_share: of the worst class, an upper bound when the run was stopped early.

    reason: why it did not pass, empty when it did. marks: why the run itself should not be trusted.
    """

    rate: float
    passed: bool
    fluid_share: float
    median_delay_ns: int | None
    reason: str = ""
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capacity:
    """rate: requests per second, 0 when not even the lowest rate passed. tried: in the order of the search."""

    rate: float
    tried: tuple[Verdict, ...]

    @property
    def limit(self) -> str:
        """What broke at the lowest rate that failed."""
        failed = [verdict for verdict in self.tried if not verdict.passed]
        return min(failed, key=lambda verdict: verdict.rate).reason if failed else ""

    @property
    def below(self) -> float | None:
        """The lowest rate tried where not even that one passed, else None."""
        return None if self.rate else min((verdict.rate for verdict in self.tried), default=None)

    @property
    def text(self) -> str:
        """The rate for people."""
        if self.below is None:
            return f"{self.rate:.3g} requests/s"
        return f"below {self.below:.3g} requests/s, the lowest rate tried"


def find_capacity(
    judge: Callable[[float], Verdict],
    *,
    start: float,
    lowest: float,
    highest: float,
    resolution: float = 0.02,
    step: float = STEP,
) -> Capacity:
    """The highest rate that passes, within ``resolution`` (a share of the rate).

    judge(rate): one run. The bracket is sought from ``start`` by factors of ``step``, ever larger, and bisected in
    logarithms. A judge that is not monotone gives one of its boundaries.

    Raises ConfigError unless 0 < lowest <= start <= highest, resolution > 0 and step > 1.
    """
    if not 0 < lowest <= start <= highest:
        raise ConfigError(
            f"A capacity search needs 0 < lowest <= start <= highest, not {lowest}, {start}, {highest}."
        )
    if not (resolution > 0 and step > 1):
        raise ConfigError(f"A capacity search needs resolution > 0 and step > 1, not {resolution}, {step}.")
    tried: list[Verdict] = []

    def passes(rate: float) -> bool:
        tried.append(judge(rate))
        return tried[-1].passed

    low, high = _bracket(passes, start, lowest, highest, step)
    if low == 0 or high > highest:
        return Capacity(low, tuple(tried))
    while high / low > 1 + resolution:
        middle = (low * high) ** 0.5
        if passes(middle):
            low = middle
        else:
            high = middle
    return Capacity(low, tuple(tried))


def _bracket(
    passes: Callable[[float], bool], start: float, lowest: float, highest: float, step: float
) -> tuple[float, float]:
    """(a rate that passes or 0, a rate that fails or one beyond the highest)."""
    rate = start
    if passes(rate):
        while rate < highest:
            higher = min(rate * step, highest)
            if not passes(higher):
                return rate, higher
            rate, step = higher, step * step
        return rate, 2 * highest
    while rate > lowest:
        lower = max(rate / step, lowest)
        if passes(lower):
            return lower, rate
        rate, step = lower, step * step
    return 0.0, lowest


def judge_timelines(
    rate: float, timelines: Sequence[RequestTimeline], *, share: float = SHARE, complete: bool = True
) -> Verdict:
    """The verdict on one run's timelines; complete: whether the run went to its end."""
    worst, found = worst_share(timelines)
    waits = [d for t in timelines if (d := scheduling_delay_ns(t)) is not None]
    delay = percentile_ns(waits, 50)
    reason = ""
    if found < share or not complete:
        reason = f"{worst}: {found:.1%} fluid, {what_broke(timelines, worst)}"
    elif delay is None or delay > LONGEST_DELAY_NS:
        reason = "no request was scheduled" if delay is None else f"median delay {delay / NS_PER_S:.1f} s"
    return Verdict(rate, not reason, found, delay, reason)


def worst_share(timelines: Sequence[RequestTimeline]) -> tuple[str, float]:
    """The SLO class with the smallest share of fluid requests, and that share."""
    return min(fluid_shares(timelines).items(), key=lambda item: item[1])


def scheduling_delay_ns(timeline: RequestTimeline) -> int | None:
    """Arrival to first scheduled, None when it never was.

    A client cannot see it: there it is what the first token took beyond the prefill curve, which is no less unless
    the curve promises too little.
    """
    if timeline.scheduled_ns is not None:
        return timeline.scheduled_ns - timeline.arrival_ns
    if timeline.source != "client" or timeline.ttft_ns is None:
        return None
    return max(0, timeline.ttft_ns - timeline.prefill_ns)


def late_first(timeline: RequestTimeline) -> bool:
    """Whether at least half of the deadlines a request missed are those that its first token came too late for."""
    first = timeline.token_ns[0] if timeline.token_ns else timeline.end_ns
    due = timeline.arrival_ns + timeline.prefill_ns + timeline.ttft_slack_ns
    return timeline.missed > 0 and 2 * overdue_periods(first, due, timeline.tbt_ns) >= timeline.missed


def what_broke(timelines: Sequence[RequestTimeline], slo_class: str) -> str:
    """What most requests of a class that are not fluid have in common."""
    bad = [t for t in timelines if t.slo_class == slo_class and not is_fluid(t)]
    failed = sum(t.status != "finished" for t in bad)
    first = sum(t.status == "finished" and late_first(t) for t in bad)
    if not bad:
        return "stopped early"
    if 2 * failed > len(bad):
        return "requests failed"
    return "first tokens late" if 2 * first >= len(bad) - failed else "later tokens late"


class FailureCount:
    """Tells when a run has lost: more requests of a class have failed than the share allows.

    classes: the SLO class of every request of the run.
    """

    def __init__(self, classes: Sequence[str], *, share: float = SHARE) -> None:
        counts = Counter(classes)
        self._allowed = {name: int(count * (1 - share) + 1e-9) for name, count in counts.items()}
        self._failed: Counter[str] = Counter()

    def failed(self, name: str) -> None:
        """One request of this class has ended and was not fluid."""
        self._failed[name] += 1

    def lost(self, hopeless: Counter[str]) -> bool:
        """Whether the share is lost, given the unfinished requests that cannot be fluid any more."""
        return any(self._failed[name] + hopeless[name] > allowed for name, allowed in self._allowed.items())
