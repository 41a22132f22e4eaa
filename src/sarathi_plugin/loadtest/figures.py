"""The figures of a run, flat, by names that carry their unit. Failed requests count in every share."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.deadlines import DeadlineState, fluid_token_rate
from sarathi_plugin.load.dispatch import dispatch_lag_ns
from sarathi_plugin.load.summary import first_waits_ns, gaps_ns, is_fluid, percentile_ns, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.records import RequestTimeline

PERCENTILES = (50, 90, 99)


class Stall(NamedTuple):
    """A token that came past its deadline, after another one: for so long its stream stood still. Nanoseconds."""

    begin_ns: int
    length_ns: int


def stalls(timeline: RequestTimeline) -> list[Stall]:
    """The stalls of one request; one that failed while overdue is in a stall up to its end."""
    first_ns = timeline.prefill_ns + timeline.ttft_slack_ns
    state = DeadlineState.from_arrival(timeline.arrival_ns, first_ns, timeline.tbt_ns)
    found = []
    ends = timeline.token_ns if timeline.status == "finished" else (*timeline.token_ns, timeline.end_ns)
    for number, now_ns in enumerate(ends):
        due_ns = state.next_deadline_ns
        if state.emit(now_ns) and number and timeline.token_ns:
            found.append(Stall(due_ns, now_ns - due_ns))
    return found


def meets_slo(timeline: RequestTimeline) -> bool:
    """Whether a request was fluid and its first token came by its deadline."""
    allowed = timeline.prefill_ns + timeline.ttft_slack_ns
    return is_fluid(timeline) and timeline.ttft_ns is not None and timeline.ttft_ns <= allowed


def figures(timelines: Sequence[RequestTimeline]) -> dict[str, float | None]:
    """Every figure by name; None where no request gave one. TTFT and E2E run from the intended time.

    A request that timed out is in TTFT, TBT and E2E with what it had waited by then.

    fluidity_share: requests with a fluidity-index >= 0.9 / all; slo_share: those whose first token also was in time.
    The ``_sent_`` figures run from the moment of sending: what a client that ignores its own queue would say.
    Raises ValueError when runs judged by different curves are mixed.
    """
    summary = summarise(timelines)
    total = len(timelines)
    standing = [stall for timeline in timelines for stall in stalls(timeline)]
    answered = [t for t in timelines if t.token_ns]
    ended = [t for t in timelines if t.status in ("finished", "timeout")]
    unsent = [
        (t.sent_ns or t.arrival_ns) - t.arrival_ns for t in timelines if t.token_ns or t.status == "timeout"
    ]
    first = first_waits_ns(timelines)
    span_s = summary.makespan_ns / NS_PER_S
    tokens = sum(len(t.token_ns) for t in timelines)
    return {
        "requests": total,
        "errors": summary.errors,
        "error_share": summary.errors / total if total else 0.0,
        "fluidity_index": summary.fluidity_index,
        "fluidity_share": summary.fluid_share,
        "slo_share": sum(map(meets_slo, timelines)) / total if total else 0.0,
        **_percentiles("ttft", first),
        **_percentiles("ttft_sent", [wait - lag for wait, lag in zip(first, unsent, strict=True)]),
        **_percentiles("e2e", [t.end_ns - t.arrival_ns for t in ended]),
        **_percentiles("e2e_sent", [t.end_ns - (t.sent_ns or t.arrival_ns) for t in ended]),
        **_percentiles("tbt", [gap for t in timelines for gap in gaps_ns(t)]),
        "longest_freeze_s": _seconds(summary.longest_freeze_ns),
        "stalls": len(standing),
        "stall_s": sum(stall.length_ns for stall in standing) / NS_PER_S,
        "fluid_tokens_per_s": fluid_token_rate([gaps_ns(t) for t in answered]),
        "output_tokens_per_s": tokens / span_s if span_s else 0.0,
        "tokens_per_s": summary.tokens_per_s,
        "makespan_s": span_s,
        "arrivals_per_s": _rate([t.arrival_ns for t in timelines]),
        "sent_per_s": _rate([t.sent_ns for t in timelines if t.sent_ns is not None]),
        "dispatch_lag_p99_s": dispatch_lag_ns(timelines) / NS_PER_S,
    }


def by_class(timelines: Sequence[RequestTimeline]) -> dict[str, dict[str, float | None]]:
    """The figures of each SLO class, by its name."""
    groups: defaultdict[str, list[RequestTimeline]] = defaultdict(list)
    for timeline in timelines:
        groups[timeline.slo_class].append(timeline)
    return {name: figures(group) for name, group in sorted(groups.items())}


def _percentiles(name: str, values_ns: Sequence[int]) -> dict[str, float | None]:
    return {f"{name}_p{p}_s": _seconds(percentile_ns(values_ns, p)) for p in PERCENTILES}


def _seconds(value_ns: int | None) -> float | None:
    return None if value_ns is None else value_ns / NS_PER_S


def _rate(times_ns: Sequence[int]) -> float | None:
    """Mean rate of events from the first to the last of them."""
    span = max(times_ns) - min(times_ns) if times_ns else 0
    return (len(times_ns) - 1) * NS_PER_S / span if span else None


FIGURES = tuple(figures(()))
"""Names of all figures."""
