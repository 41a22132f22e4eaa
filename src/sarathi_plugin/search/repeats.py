"""Capacity from repeats: one search a seed, the mean and its confidence interval, and what broke at the limit."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sarathi_plugin.config import ConfigError
from sarathi_plugin.search.capacity import find_capacity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sarathi_plugin.search.capacity import Capacity, Verdict

T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t, two-sided 95 %, by degrees of freedom from one on."""

SPAN = 64.0
"""Rates are sought between the start divided and multiplied by it."""


class Interval(NamedTuple):
    """A mean with the 95 % interval of it."""

    mean: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.mean:.3g} (95 % {self.low:.3g} to {self.high:.3g})"


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Mean and 95 % interval by Student's t; None of fewer than two values, which show no spread."""
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    half = T_975[min(len(values) - 1, len(T_975)) - 1] * statistics.stdev(values) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True, slots=True)
class Repeated:
    """Capacities of the repeats, requests per second, in order; and how finely each was sought."""

    capacities: tuple[Capacity, ...]
    resolution: float

    @property
    def rates(self) -> list[float]:
        """By repeat: the highest rate that passed."""
        return [capacity.rate for capacity in self.capacities]

    @property
    def rate(self) -> float:
        """The mean over the repeats."""
        return statistics.fmean(self.rates)

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the capacity.

        A search ends on average half its resolution below the limit, so both ends are that much higher than of the
        rates; and the interval is never narrower than what the resolution leaves open.
        """
        found = mean_interval(self.rates)
        if found is None:
            return None
        up = 1 + self.resolution / 2
        low, high = min(found.low * up, found.mean), max(found.high * up, found.mean * (1 + self.resolution))
        return Interval(found.mean, max(0.0, low), high)

    @property
    def limits(self) -> list[tuple[str, int]]:
        """What broke at the lowest rate that failed, without its figures, and in how many repeats; most first."""
        return Counter(kind_of(c.limit) for c in self.capacities if c.limit).most_common()

    @property
    def open_ended(self) -> bool:
        """Whether some repeat never met a rate that failed: the capacity is at least what is said."""
        return any(all(verdict.passed for verdict in capacity.tried) for capacity in self.capacities)

    @property
    def below(self) -> float | None:
        """The lowest rate tried where nothing passed in any repeat, else None."""
        return None if self.rate else min((c.below for c in self.capacities if c.below), default=None)

    def as_data(self) -> dict[str, Any]:
        """For JSON: every run of every repeat too."""
        interval = self.interval
        return {
            "requests_per_s": self.rate,
            "interval_95": None if interval is None else [interval.low, interval.high],
            "by_repeat": self.rates,
            "resolution": self.resolution,
            "at_least": self.open_ended,
            "below": self.below,
            "limits": [{"what": what, "repeats": count} for what, count in self.limits],
            "runs": [[_run(verdict) for verdict in capacity.tried] for capacity in self.capacities],
        }


def _run(verdict: Verdict) -> dict[str, Any]:
    delay = verdict.median_delay_ns
    return {
        "rate": verdict.rate,
        "passed": verdict.passed,
        "fluid_share": verdict.fluid_share,
        "median_delay_s": None if delay is None else delay / 1e9,
        "reason": verdict.reason,
        "marks": list(verdict.marks),
    }


def kind_of(reason: str) -> str:
    """A reason without its figures: ``standard: 98.2% fluid, first tokens late`` is ``standard: first tokens late``."""
    head, colon, rest = reason.partition(": ")
    if colon and "fluid, " in rest:
        return f"{head}: {rest.rpartition(', ')[2]}"
    words: list[str] = []
    for word in reason.split():
        if words and word[0].isdigit():
            break
        words.append(word)
    return " ".join(words).removesuffix(" more than")


def one_repeat(
    judge: Callable[[float], Verdict], *, start: float, resolution: float, step: float, span: float = SPAN
) -> Capacity:
    """The capacity of one seed, sought up to a factor of ``span`` from ``start``. Raises ConfigError."""
    if span < 1:
        raise ConfigError(f"A capacity search needs a span of at least 1, not {span}.")
    return find_capacity(
        judge, start=start, lowest=start / span, highest=start * span, resolution=resolution, step=step
    )


def _under(judge: Callable[[float, int], Verdict], seed: int, rate: float) -> Verdict:
    return judge(rate, seed)


def in_sequence(
    judge: Callable[[float, int], Verdict],
    seeds: Sequence[int],
    *,
    start: float,
    resolution: float,
    step: float = 1.3,
    note: Callable[[int, Capacity], None] = lambda _seed, _capacity: None,
) -> Repeated:
    """One search a seed, one after another; each begins where those before it ended, in smaller steps.

    judge(rate, seed): one run. note: told after each repeat. Raises ConfigError for no seed or bad numbers.
    """
    if not seeds:
        raise ConfigError("A capacity needs at least one repeat.")
    found: list[Capacity] = []
    for seed in seeds:
        known = [capacity.rate for capacity in found if capacity.rate > 0]
        first = statistics.fmean(known) if known else start
        stride = 1 + (step - 1) / 2 if known else step
        found.append(
            one_repeat(partial(_under, judge, seed), start=first, resolution=resolution, step=stride)
        )
        note(seed, found[-1])
    return Repeated(tuple(found), resolution)
