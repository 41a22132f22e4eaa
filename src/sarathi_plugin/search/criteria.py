"""When a run passes: our criterion (fluid), that of Sarathi-Serve, and the three of Etalon's capacity search.

Each is a settings model, so a file and a flag can name it: ``{name: sarathi, tbt_s: 0.1}``. All but ours are upper
bounds on quantiles over all requests or tokens of a run, linear between neighbours, whatever their SLO class. A request
that failed counts as worse than any bound, and fewer may fail than the quantile leaves out; the tools they come from
leave it out.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from sarathi_plugin.config import ConfigError, Strict, explain
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.search.capacity import SHARE, Verdict, judge_timelines, scheduling_delay_ns, worst_share
from sarathi_plugin.search.tally import FluidTally, QuantileTally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sarathi_plugin.load.targets import Targets
    from sarathi_plugin.records import RequestTimeline
    from sarathi_plugin.search.tally import Tally
    from sarathi_plugin.workload.trace import Trace

NEVER = 1e18
"""Stands for a value that never came: 31 years in nanoseconds, and more than any share."""

Quantity = Literal["TBT", "TTFT", "TPOT", "scheduling delay", "miss rate"]
UNITS: Mapping[Quantity, float] = {
    "TBT": 1e9,
    "TTFT": 1e9,
    "TPOT": 1e9,
    "scheduling delay": 1e9,
    "miss rate": 1,
}
"""What one unit of a limit is in the values: seconds in nanoseconds, shares as they are."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A quantile (0 to 1) of a quantity must be at most ``limit``: seconds, or a share for the miss rate."""

    quantity: Quantity
    quantile: float
    limit: float

    @property
    def bound(self) -> float:
        """The limit in the unit of ``values_of``."""
        return self.limit * UNITS[self.quantity]

    def values_of(self, timeline: RequestTimeline) -> Sequence[float]:
        """What a request that has ended contributes: nanoseconds, or a share."""
        failed = timeline.status != "finished"
        if self.quantity == "TBT":
            return timeline.gaps_ns
        if self.quantity == "scheduling delay":
            delay = scheduling_delay_ns(timeline)
            return (NEVER if failed or delay is None else delay,)
        if self.quantity == "miss rate":
            return (NEVER if failed else 1 - timeline.fluidity_index,)
        if failed or timeline.ttft_ns is None:
            return (NEVER,)
        if self.quantity == "TTFT":
            return (timeline.ttft_ns,)
        gaps = timeline.gaps_ns
        return (sum(gaps) / len(gaps) if gaps else 0.0,)

    def population(self, trace: Trace) -> int:
        """How many values a whole run of this trace has at most."""
        if self.quantity == "TBT":
            return sum(request.output_tokens - 1 for request in trace.requests)
        return len(trace.requests)

    def broken(self, timelines: Sequence[RequestTimeline]) -> str:
        """What is wrong, in words; empty when it holds."""
        values = [value for timeline in timelines for value in self.values_of(timeline)]
        found = float(np.quantile(values, self.quantile)) if values else 0.0
        # The gaps that a failed request never got are not among the values of TBT, and nobody knows how many they are.
        failed = sum(timeline.status != "finished" for timeline in timelines)
        too_many = self.quantity == "TBT" and failed > (1 - self.quantile) * len(timelines) + 1e-9
        if found <= self.bound and not too_many:
            return ""
        name = f"P{100 * self.quantile:g} {self.quantity}"
        if too_many or found >= NEVER / 2:
            return f"{name}: too many requests failed"
        shown = found / UNITS[self.quantity]
        unit = "" if self.quantity == "miss rate" else " s"
        return f"{name} {shown:.3g}{unit}, more than {self.limit:g}{unit}"


class Criterion(Protocol):
    """Says whether a run passes, and while it goes on, whether it no longer can."""

    def verdict(self, rate: float, timelines: Sequence[RequestTimeline]) -> Verdict:
        """The verdict on a whole run at ``rate`` requests per second."""

    def tally(self, trace: Trace, targets: Targets) -> Tally:
        """A fresh count of what is lost, for one run of this trace."""


class Fluid(Strict):
    """At least ``share`` of the requests of every SLO class are fluid; the median scheduling delay is at most 2 s."""

    name: Literal["fluid"] = "fluid"
    share: float = Field(default=SHARE, gt=0, le=1, description="Share of requests that must be fluid.")

    def verdict(self, rate: float, timelines: Sequence[RequestTimeline]) -> Verdict:
        """See ``judge_timelines``."""
        return judge_timelines(rate, timelines, share=self.share)

    def tally(self, trace: Trace, targets: Targets) -> Tally:
        """Counts requests that are not fluid."""
        return FluidTally(trace, targets, self.share)


class _Quantiles(Strict):
    """What the criteria made of conditions share."""

    @property
    @abstractmethod
    def conditions(self) -> tuple[Condition, ...]:
        """All of them must hold."""

    def verdict(self, rate: float, timelines: Sequence[RequestTimeline]) -> Verdict:
        """The first condition that is broken is the reason."""
        reasons = (condition.broken(timelines) for condition in self.conditions)
        reason = next((text for text in reasons if text), "")
        delays = [d for t in timelines if (d := scheduling_delay_ns(t)) is not None]
        median = round(float(np.median(delays))) if delays else None
        return Verdict(rate, not reason, worst_share(timelines)[1], median, reason)

    def tally(self, trace: Trace, targets: Targets) -> Tally:
        """Counts values beyond their bounds."""
        del targets
        return QuantileTally(trace, self.conditions)


class Sarathi(_Quantiles):
    """Sarathi-Serve (arXiv 2403.02310, section 5): P99 TBT within a target, median scheduling delay within 2 s."""

    name: Literal["sarathi"] = "sarathi"
    tbt_s: float = Field(gt=0, description="Limit of TBT, seconds.")
    tbt_percentile: float = Field(default=99, gt=0, le=100, description="Of the time between tokens.")
    delay_s: float = Field(default=2, gt=0, description="Limit of the median scheduling delay, seconds.")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """TBT over all tokens, delay over all requests."""
        return (
            Condition("TBT", self.tbt_percentile / 100, self.tbt_s),
            Condition("scheduling delay", 0.5, self.delay_s),
        )


class Deadline(_Quantiles):
    """Etalon's ``deadline``: the P99 over requests of the share of missed deadlines is at most 0.1."""

    name: Literal["deadline"] = "deadline"
    miss_rate: float = Field(default=0.1, ge=0, lt=1, description="Limit of the share of missed deadlines.")
    percentile: float = Field(default=99, gt=0, le=100, description="Over the requests.")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """One."""
        return (Condition("miss rate", self.percentile / 100, self.miss_rate),)


class TbtTtft(_Quantiles):
    """Etalon's ``tbt_ttft``: P99 TBT over tokens and P90 TTFT over requests, each within a constant."""

    name: Literal["tbt_ttft"] = "tbt_ttft"
    tbt_s: float = Field(default=0.03, gt=0, description="Limit of TBT, seconds.")
    tbt_percentile: float = Field(default=99, gt=0, le=100, description="Of the time between tokens.")
    ttft_s: float = Field(default=0.1, gt=0, description="Limit of TTFT, seconds.")
    ttft_percentile: float = Field(default=90, gt=0, le=100, description="Of the time to first token.")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Two."""
        return (
            Condition("TBT", self.tbt_percentile / 100, self.tbt_s),
            Condition("TTFT", self.ttft_percentile / 100, self.ttft_s),
        )


class TtftTpot(_Quantiles):
    """Etalon's ``ttft_tpot``: P90 TTFT and P90 TPOT over requests. TPOT hides stalls; it is here to be compared."""

    name: Literal["ttft_tpot"] = "ttft_tpot"
    ttft_s: float = Field(default=0.1, gt=0, description="Limit of TTFT, seconds.")
    ttft_percentile: float = Field(default=90, gt=0, le=100, description="Of the time to first token.")
    tpot_s: float = Field(default=0.1, gt=0, description="Limit of TPOT, seconds.")
    tpot_percentile: float = Field(
        default=90, gt=0, le=100, description="Of a request's mean time per token."
    )

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Two."""
        return (
            Condition("TTFT", self.ttft_percentile / 100, self.ttft_s),
            Condition("TPOT", self.tpot_percentile / 100, self.tpot_s),
        )


AnyCriterion = Annotated[Fluid | Sarathi | Deadline | TbtTtft | TtftTpot, Field(discriminator="name")]
CRITERIA = ("fluid", "sarathi", "deadline", "tbt_ttft", "ttft_tpot")
_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyCriterion)


def make_criterion(name: str, limits: Sequence[str] = ()) -> Any:
    """A criterion by name, with ``KEY=NUMBER`` texts on top of its defaults. Raises ConfigError."""
    if name not in CRITERIA:
        raise ConfigError(f"No criterion {name!r}: use one of {', '.join(CRITERIA)}.")
    data: dict[str, Any] = {"name": name}
    for text in limits:
        key, _, value = text.partition("=")
        try:
            data[key] = float(value)
        except ValueError as error:
            raise ConfigError(f"Write --limit KEY=NUMBER, not {text!r}.") from error
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        raise ConfigError(explain(error, f"criterion {name}")) from error


def seconds(ns: float | None) -> float | None:
    """Nanoseconds as seconds; None stays."""
    return None if ns is None else ns / NS_PER_S
