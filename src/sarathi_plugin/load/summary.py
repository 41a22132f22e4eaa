"""Timelines to numbers. Nothing is dropped: a failed request counts against every share.

One that timed out counts in latencies, too, with what it had waited for its next token by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.deadlines import FLUID_THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sarathi_plugin.records import RequestTimeline


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """One run in figures; times in nanoseconds, None where no request gave one.

    longest_freeze_ns: largest of ``gaps_ns``. tbt: per token, so a step that brings k tokens
    gives one gap and k - 1 zeros. fluidity_index: deadlines met / all deadlines, over all requests. fluid_share:
    requests that finished with a fluidity-index of at least 0.9 / all requests. tokens_per_s: prompt and output
    tokens of the requests that were answered at all, per second from the first arrival to the last end.
    """

    requests: int
    errors: int
    longest_freeze_ns: int | None
    tbt_p50_ns: int | None
    tbt_p99_ns: int | None
    ttft_p50_ns: int | None
    ttft_p99_ns: int | None
    fluidity_index: float
    fluid_share: float
    tokens_per_s: float
    makespan_ns: int


def summarise(timelines: Sequence[RequestTimeline]) -> LoadSummary:
    """The figures of one run. Raises ValueError when runs judged by different curves are mixed."""
    if len({t.curve for t in timelines}) > 1:
        raise ValueError("Timelines judged by different prefill curves cannot be summed up together.")
    gaps = [gap for t in timelines for gap in gaps_ns(t)]
    first = first_waits_ns(timelines)
    deadlines = sum(t.met + t.missed for t in timelines)
    span = max(t.end_ns for t in timelines) - min(t.arrival_ns for t in timelines) if timelines else 0
    tokens = sum(t.prompt_tokens + len(t.token_ns) for t in timelines if t.token_ns)
    return LoadSummary(
        requests=len(timelines),
        errors=sum(t.status != "finished" for t in timelines),
        longest_freeze_ns=max(gaps, default=None),
        tbt_p50_ns=percentile_ns(gaps, 50),
        tbt_p99_ns=percentile_ns(gaps, 99),
        ttft_p50_ns=percentile_ns(first, 50),
        ttft_p99_ns=percentile_ns(first, 99),
        fluidity_index=sum(t.met for t in timelines) / deadlines if deadlines else 0.0,
        fluid_share=sum(map(is_fluid, timelines)) / len(timelines) if timelines else 0.0,
        tokens_per_s=tokens * NS_PER_S / span if span else 0.0,
        makespan_ns=span,
    )


def first_waits_ns(timelines: Iterable[RequestTimeline]) -> list[int]:
    """Time to first token of every request that got one or timed out before, nanoseconds."""
    waits = (t.ttft_ns if t.token_ns else t.given_up_ns for t in timelines)
    return [wait for wait in waits if wait is not None]


def gaps_ns(timeline: RequestTimeline) -> list[int]:
    """Times between the tokens of a request, and the one it timed out in, nanoseconds."""
    last = timeline.given_up_ns
    return timeline.gaps_ns + ([last] if last is not None and timeline.token_ns else [])


def is_fluid(timeline: RequestTimeline) -> bool:
    """Whether a request was answered in full and kept at least 0.9 of its deadlines."""
    return timeline.status == "finished" and timeline.fluidity_index >= FLUID_THRESHOLD


def fluid_shares(timelines: Iterable[RequestTimeline]) -> dict[str, float]:
    """Share of fluid requests by SLO class, in the order in which the classes appear."""
    by_class: dict[str, list[bool]] = {}
    for timeline in timelines:
        by_class.setdefault(timeline.slo_class, []).append(is_fluid(timeline))
    return {name: sum(fluid) / len(fluid) for name, fluid in by_class.items()}


def percentile_ns(values: Sequence[int], percentile: float) -> int | None:
    """A percentile (linear between neighbours) in whole nanoseconds, None of nothing."""
    return round(float(np.percentile(values, percentile))) if len(values) else None
