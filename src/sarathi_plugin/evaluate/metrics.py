"""What is compared: every metric by name, computed from the timelines of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.load.summary import first_waits_ns, gaps_ns, is_fluid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sarathi_plugin.records import RequestTimeline

    Values = Callable[[Sequence[RequestTimeline]], list[float]]

CAPACITY = "capacity"
Kind = Literal["share", "index", "time", "rate"]
"""share and index are compared by difference, time and rate by ratio."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a run. higher: whether more is better. normalised: divided by a length, which hides stalls."""

    name: str
    title: str
    kind: Kind
    higher: bool
    of: Callable[[Sequence[RequestTimeline]], float | None]
    normalised: bool = False

    @property
    def by_ratio(self) -> bool:
        """Whether arms are compared by the ratio of their figures, not by the difference."""
        return self.kind in ("time", "rate")

    def text(self, value: float | None, *, sign: bool = False) -> str:
        """A figure as people read it."""
        if value is None:
            return "-"
        plus = "+" if sign else ""
        if self.kind == "share":
            return f"{100 * value:{plus}.1f} %"
        if self.kind == "index":
            return f"{value:{plus}.3f}"
        if self.kind == "rate":
            return f"{value:{plus}.3g}"
        return f"{value / 1000:{plus}.2f} s" if abs(value) >= 1000 else f"{value:{plus}.1f} ms"


def ttft_ms(timelines: Sequence[RequestTimeline]) -> list[float]:
    """Time to first token of every request that got one or timed out before, milliseconds."""
    return [wait / NS_PER_MS for wait in first_waits_ns(timelines)]


def tbt_ms(timelines: Sequence[RequestTimeline]) -> list[float]:
    """Time between tokens, every gap of every request, also the one it timed out in, milliseconds."""
    return [gap / NS_PER_MS for t in timelines for gap in gaps_ns(t)]


def delay_ms(timelines: Sequence[RequestTimeline]) -> list[float]:
    """Scheduling delay: arrival to the first chunk, where it is known, or to a time-out before it, milliseconds."""
    begun = (
        (
            t,
            t.end_ns
            if t.scheduled_ns is None and t.status == "timeout" and t.source != "client"
            else t.scheduled_ns,
        )
        for t in timelines
    )
    return [(moment - t.arrival_ns) / NS_PER_MS for t, moment in begun if moment is not None]


def prefill_ms(timelines: Sequence[RequestTimeline]) -> list[float]:
    """First chunk to first token, where both are known, milliseconds."""
    return [
        (t.token_ns[0] - t.scheduled_ns) / NS_PER_MS
        for t in timelines
        if t.token_ns and t.scheduled_ns is not None
    ]


def decode_ms(timelines: Sequence[RequestTimeline]) -> list[float]:
    """First to last token, milliseconds."""
    return [(t.token_ns[-1] - t.token_ns[0]) / NS_PER_MS for t in timelines if len(t.token_ns) > 1]


def tpot_ms(timelines: Sequence[RequestTimeline]) -> list[float]:
    """Mean time per output token after the first, one value a request: a normalised figure, blind to stalls."""
    return [
        (t.token_ns[-1] - t.token_ns[0]) / NS_PER_MS / (len(t.token_ns) - 1)
        for t in timelines
        if len(t.token_ns) > 1
    ]


def fluidity(timelines: Sequence[RequestTimeline]) -> list[float]:
    """Fluidity-index of every request."""
    return [t.fluidity_index for t in timelines]


def _percentile(values: Values, q: float) -> Callable[[Sequence[RequestTimeline]], float | None]:
    def of(timelines: Sequence[RequestTimeline]) -> float | None:
        found = values(timelines)
        return float(np.percentile(found, q)) if found else None

    return of


def _fluid_share(timelines: Sequence[RequestTimeline]) -> float | None:
    return sum(map(is_fluid, timelines)) / len(timelines) if timelines else None


def _index(timelines: Sequence[RequestTimeline]) -> float | None:
    total = sum(t.met + t.missed for t in timelines)
    return sum(t.met for t in timelines) / total if total else None


def _freeze(timelines: Sequence[RequestTimeline]) -> float | None:
    return max(tbt_ms(timelines), default=None)


def _tokens_per_s(timelines: Sequence[RequestTimeline]) -> float | None:
    if not timelines:
        return None
    span = max(t.end_ns for t in timelines) - min(t.arrival_ns for t in timelines)
    return sum(len(t.token_ns) for t in timelines) * NS_PER_S / span if span else None


def _all() -> list[Metric]:
    found = [
        Metric("fluid_share", "fluid requests", "share", True, _fluid_share),
        Metric("fluidity_index", "fluidity-index", "index", True, _index),
    ]
    times: tuple[tuple[str, str, Values, bool], ...] = (
        ("ttft", "TTFT", ttft_ms, False),
        ("tbt", "TBT", tbt_ms, False),
        ("delay", "scheduling delay", delay_ms, False),
        ("tpot", "time per output token", tpot_ms, True),
    )
    for name, title, values, normalised in times:
        found += [
            Metric(f"{name}_p{q}", f"{title} P{q}", "time", False, _percentile(values, q), normalised)
            for q in (50, 90, 99)
        ]
    return [
        *found,
        Metric("longest_freeze", "longest freeze", "time", False, _freeze),
        Metric("tokens_per_s", "output tokens per second", "rate", True, _tokens_per_s),
        Metric(CAPACITY, "fluid capacity (requests/s)", "rate", True, lambda _: None),
    ]


METRICS: dict[str, Metric] = {metric.name: metric for metric in _all()}
"""Every metric by its name. ``capacity`` comes from a search of its own, not from one run."""


OF_SERVER = frozenset(name for name in METRICS if name.startswith("delay_"))
"""Those of which a client knows nothing."""


def metric_named(name: str) -> Metric:
    """Raises ConfigError for an unknown name."""
    if name not in METRICS:
        raise ConfigError(f"No metric {name!r}: use one of {', '.join(METRICS)}.")
    return METRICS[name]


def figures(timelines: Sequence[RequestTimeline]) -> dict[str, float | None]:
    """All metrics of one run but capacity; times in milliseconds."""
    return {name: metric.of(timelines) for name, metric in METRICS.items() if name != CAPACITY}
