"""What a load test sends and when: one schedule from a seed, split over workers without gaps or doubles."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.workload.synthetic import own_content
from sarathi_plugin.workload.trace import Segment, Trace, TraceRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.workload.spec import WorkloadSpec

DEFAULT_DURATION_S = 60.0
LONGEST_S = 30 * 86_400.0
MOST_REQUESTS = 10_000_000
"""All of them are drawn before the run, and lie in memory."""
BURSTY = 3.0
_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?([eE][-+]?\d+)?)(?P<unit>s|m|h|)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Amount(NamedTuple):
    """How much is sent: mean rate in requests a second, seconds of arrivals, most requests; None where not given.

    users: with them the loop is closed: each sends, waits for the answer, and thinks ``think_s`` seconds on average.
    """

    rate: float | None = None
    duration_s: float | None = None
    requests: int | None = None
    users: int | None = None
    think_s: float = 5.0


def duration_s(text: str | None) -> float | None:
    """Seconds of "90", "90s", "1.5m", "1h", up to 30 days; None of None. Raises ConfigError."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    if match is None or not float(match["number"]):
        raise ConfigError(f"--duration takes seconds, or a number with s, m or h, not {text!r}.")
    seconds = float(match["number"]) * _SECONDS[match["unit"]]
    if seconds > LONGEST_S:
        raise ConfigError(f"--duration takes at most 30 days (720h), not {text!r}.")
    return seconds


def schedule(spec: WorkloadSpec, amount: Amount, seed: int) -> Trace:
    """The requests of a run; every one names its content, so that any part of it gives the same prompts.

    With a duration, those that arrive within it. Raises ConfigError for a missing rate or an empty run.
    """
    rate = amount.rate if amount.rate is not None else spec.rate
    requests = amount.requests if amount.requests is not None else spec.requests
    duration_s = amount.duration_s
    if duration_s is None and requests is None and spec.kind is not None:
        duration_s = DEFAULT_DURATION_S
    if requests is None and duration_s is not None and spec.kind is not None:
        if rate is None:
            raise ConfigError(f"Workload {spec.kind!r} needs a rate in requests a second: give --rate.")
        requests = _enough(rate, duration_s, shaped=_shaped(spec), cv=_burstiness(spec))
    if requests is not None and requests > MOST_REQUESTS:
        raise ConfigError(f"A run has at most {MOST_REQUESTS} requests, not {requests:.3g}: lower --rate.")
    trace = spec.trace(rate, requests, seed)
    if duration_s is not None:
        end_ns = round(duration_s * NS_PER_S)
        kept = tuple(request for request in trace.requests if request.offset_ns < end_ns)
        if not kept:
            raise ConfigError(f"No request arrives within {duration_s:g} s: raise --duration or --rate.")
        trace = Trace(trace.name, kept)
    return Trace(trace.name, tuple(_with_content(i, request) for i, request in enumerate(trace.requests)))


def share_of(trace: Trace, index: int, count: int) -> Trace:
    """The requests of worker ``index`` of ``count``: every count-th, from ``index`` on."""
    return Trace(trace.name, trace.requests[index::count])


def lost_turn(user: int) -> TraceRequest:
    """What is charged for a user of a closed loop whose worker disappeared: one turn of unknown length."""
    return TraceRequest(
        request_id=f"user-{user}-lost", offset_ns=0, prompt_tokens=1, output_tokens=1, kind="turn"
    )


def check_fits(trace: Trace, max_model_tokens: int) -> None:
    """Raise ConfigError when requests need a longer model than the server has."""
    needs = [request.prompt_tokens + request.output_tokens for request in trace.requests]
    long = sum(need > max_model_tokens for need in needs)
    if long:
        raise ConfigError(
            f"{long} of {len(needs)} requests need more than the model's {max_model_tokens} tokens (up to "
            f"{max(needs)}): scale their lengths with --scale, or choose another workload."
        )


def to_rows(trace: Trace) -> list[list[object]]:
    """The requests as plain lists, to be sent to a worker."""
    return [
        [
            r.request_id,
            r.offset_ns,
            r.prompt_tokens,
            r.output_tokens,
            r.slo_class,
            r.kind,
            list(map(list, r.segments)),
        ]
        for r in trace.requests
    ]


def from_rows(name: str, rows: Sequence[Sequence[object]]) -> Trace:
    """The trace that ``to_rows`` took apart."""
    requests = []
    for request_id, offset_ns, prompt, output, slo_class, kind, segments in rows:
        parts = tuple(Segment(content, tokens) for content, tokens in segments)  # type: ignore[attr-defined]
        requests.append(
            TraceRequest(
                request_id=str(request_id),
                offset_ns=int(offset_ns),  # type: ignore[call-overload]
                prompt_tokens=int(prompt),  # type: ignore[call-overload]
                output_tokens=int(output),  # type: ignore[call-overload]
                slo_class=str(slo_class),
                kind=str(kind),
                segments=parts,
            )
        )
    return Trace(name, tuple(requests))


def _with_content(number: int, request: TraceRequest) -> TraceRequest:
    return replace(request, segments=request.segments or own_content(number, request.prompt_tokens))


def _shaped(spec: WorkloadSpec) -> bool:
    """Whether the arrivals have a course over the run as a whole, which a longer draw would stretch."""
    return spec.arrivals is not None and spec.arrivals.process in ("ramp", "step", "diurnal")


def _burstiness(spec: WorkloadSpec) -> float:
    """Coefficient of variation of the gaps, at least ``BURSTY``, that of the burstiest kind."""
    return max(
        BURSTY, spec.arrivals.cv if spec.arrivals is not None and spec.arrivals.process == "gamma" else 0
    )


def _enough(rate: float, duration_s: float, *, shaped: bool, cv: float = BURSTY) -> int:
    """Requests to draw so that a run of this length does not end early: six standard deviations of their number.

    Gaps burstier than those of any kind also come in long bursts, up to cv^2 requests at once.
    """
    mean = rate * duration_s
    burst = 6 * cv**2 if cv > BURSTY else 0
    return max(1, round(mean)) if shaped else math.ceil(mean + 6 * cv * math.sqrt(mean) + 10 + burst)
