"""The figures of a run while it lasts: a few counters and histograms, updated once a finished request.

Cheap, because on one process it shares the core that sends. Percentiles are right within 5 %; those of the summary
are exact.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.load.summary import first_waits_ns, gaps_ns, is_fluid
from sarathi_plugin.load.under_way import Overdue
from sarathi_plugin.loadtest.faults import fault_kind
from sarathi_plugin.loadtest.figures import meets_slo, stalls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.records import RequestTimeline

_GROWTH = math.log(1.05)
_BUCKETS = 400
_SMALLEST_NS = 10_000


class LogHistogram:
    """Durations in buckets that grow by 5 %, from 10 microseconds to about 50 minutes."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BUCKETS, np.int64)
        self.sum_ns = 0

    def add(self, values_ns: Sequence[int]) -> None:
        """Count durations."""
        if not values_ns:
            return
        values = np.maximum(np.asarray(values_ns, np.float64), _SMALLEST_NS)
        index = np.minimum(np.ceil(np.log(values / _SMALLEST_NS) / _GROWTH), _BUCKETS - 1).astype(np.int64)
        self.counts += np.bincount(index, minlength=_BUCKETS)
        self.sum_ns += sum(values_ns)

    @property
    def total(self) -> int:
        """How many were counted."""
        return int(self.counts.sum())

    def percentile_s(self, percentile: float) -> float | None:
        """Upper edge of the bucket that holds it, seconds; None of nothing."""
        total = self.total
        if not total:
            return None
        index = int(np.searchsorted(self.counts.cumsum(), percentile / 100 * total))
        return self.edge_s(index)

    def below(self, seconds: float) -> int:
        """How many lie in buckets that end at or before ``seconds``."""
        index = math.floor(math.log(max(seconds * NS_PER_S, _SMALLEST_NS) / _SMALLEST_NS) / _GROWTH + 1e-9)
        return int(self.counts[: index + 1].sum())

    @staticmethod
    def edge_s(index: int) -> float:
        """Upper edge of a bucket, seconds."""
        return float(_SMALLEST_NS * math.exp(index * _GROWTH)) / NS_PER_S


@dataclass(slots=True)
class ClassFigures:
    """What is counted of one SLO class. Histograms: time to first token, to the end, between tokens; lag of sending."""

    ended: int = 0
    fluid: int = 0
    within_slo: int = 0
    met: int = 0
    missed: int = 0
    tokens: int = 0
    stalls: int = 0
    stall_ns: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    ttft: LogHistogram = field(default_factory=LogHistogram)
    e2e: LogHistogram = field(default_factory=LogHistogram)
    tbt: LogHistogram = field(default_factory=LogHistogram)
    lag: LogHistogram = field(default_factory=LogHistogram)

    def add(self, timeline: RequestTimeline) -> None:
        """Count one request that ended."""
        self.ended += 1
        self.fluid += is_fluid(timeline)
        self.within_slo += meets_slo(timeline)
        self.met += timeline.met
        self.missed += timeline.missed
        self.tokens += len(timeline.token_ns)
        if timeline.missed:
            for stall in stalls(timeline):
                self.stalls += 1
                self.stall_ns += stall.length_ns
        if kind := fault_kind(timeline):
            self.faults[kind] += 1
        if timeline.status in ("finished", "timeout"):
            self.e2e.add([timeline.end_ns - timeline.arrival_ns])
        self.ttft.add(first_waits_ns([timeline]))
        self.tbt.add(gaps_ns(timeline))
        if timeline.sent_ns is not None:
            self.lag.add([max(0, timeline.sent_ns - timeline.arrival_ns)])

    @property
    def fluidity_index(self) -> float | None:
        """Deadlines met / all of them; None without any."""
        deadlines = self.met + self.missed
        return self.met / deadlines if deadlines else None

    @property
    def fluidity_share(self) -> float | None:
        """Requests with a fluidity-index >= 0.9 / all that ended."""
        return self.fluid / self.ended if self.ended else None

    @property
    def slo_share(self) -> float | None:
        """Fluid requests whose first token was in time, too / all that ended."""
        return self.within_slo / self.ended if self.ended else None


class Point(NamedTuple):
    """The requests that ended in one interval. at_s: its end, after the start of the run; None: nothing to measure."""

    at_s: float
    ended: int
    failed: int
    tokens_per_s: float
    stalls: int
    overdue: int
    fluidity_index: float | None
    fluidity_share: float | None
    slo_share: float | None
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tbt_p50_s: float | None
    tbt_p99_s: float | None


class Live:
    """Totals by class, and a course over time that ``tick`` extends."""

    def __init__(self) -> None:
        self.classes: defaultdict[str, ClassFigures] = defaultdict(ClassFigures)
        self.course: list[Point] = []
        self.overdue = Overdue()
        self._all = ClassFigures()
        self._interval = ClassFigures()
        self._last_s = 0.0

    def reset(self) -> None:
        """Begin another run."""
        self.classes.clear()
        self.course.clear()
        self._all, self._interval, self._last_s = ClassFigures(), ClassFigures(), 0.0

    def add(self, timeline: RequestTimeline) -> None:
        """Count one request that ended."""
        self.classes[timeline.slo_class].add(timeline)
        self._all.add(timeline)
        self._interval.add(timeline)

    def tick(self, at_s: float) -> None:
        """End an interval, so many seconds after the start."""
        part, length_s = self._interval, at_s - self._last_s
        if length_s <= 0:
            return
        self.course.append(
            Point(
                round(at_s, 3),
                part.ended,
                sum(part.faults.values()),
                part.tokens / length_s,
                part.stalls,
                self.overdue.requests,
                part.fluidity_index,
                part.fluidity_share,
                part.slo_share,
                part.ttft.percentile_s(50),
                part.ttft.percentile_s(99),
                part.tbt.percentile_s(50),
                part.tbt.percentile_s(99),
            )
        )
        self._interval, self._last_s = ClassFigures(), at_s

    def total(self) -> dict[str, str]:
        """The figures of all classes together, as text, by title."""
        kept = ("fluidity", "fluid", "slo", "lag", "tbt", "ttft", "stalls")
        found = row("", self._all)
        return {COLUMNS[key]: found[key] for key in kept} | {"overdue now": self.overdue_text()}

    def overdue_text(self) -> str:
        """Requests past their deadline now and the wait of the worst, for a screen."""
        count, worst_ns = self.overdue
        return f"{count} ({_time(worst_ns / NS_PER_S)})" if count else "0"

    def faults(self) -> dict[str, int]:
        """Failed requests by kind, most frequent first."""
        return dict(self._all.faults.most_common())

    def rows(self) -> list[dict[str, str]]:
        """One row a class, as text, for tables on a screen."""
        return [row(name, figures) for name, figures in sorted(self.classes.items())]


COLUMNS = {
    "class": "SLO class",
    "ended": "ended",
    "failed": "failed",
    "fluidity": "fluidity-index",
    "fluid": "fluid requests",
    "slo": "within SLO",
    "ttft": "TTFT P50 / P99",
    "tbt": "TBT P50 / P99",
    "e2e": "E2E P50 / P99",
    "stalls": "stalls",
    "lag": "sent late P99",
}
"""Columns of ``Live.rows`` with their titles."""


def row(name: str, figures: ClassFigures) -> dict[str, str]:
    """The figures of one class as text."""
    return {
        "class": name,
        "ended": str(figures.ended),
        "failed": str(sum(figures.faults.values())),
        "fluidity": _share(figures.fluidity_index),
        "fluid": _share(figures.fluidity_share),
        "slo": _share(figures.slo_share),
        "ttft": _pair(figures.ttft),
        "tbt": _pair(figures.tbt),
        "e2e": _pair(figures.e2e),
        "stalls": f"{figures.stalls} ({figures.stall_ns / NS_PER_S:.1f} s)",
        "lag": _time(figures.lag.percentile_s(99)),
    }


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _pair(histogram: LogHistogram) -> str:
    return f"{_time(histogram.percentile_s(50))} / {_time(histogram.percentile_s(99))}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    milliseconds = seconds * NS_PER_S / NS_PER_MS
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{seconds:.1f} s"
