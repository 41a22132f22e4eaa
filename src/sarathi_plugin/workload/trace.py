"""Traces: when requests arrive and how long they are, without their text.

A simulator plays one as it is; a load client makes prompts of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.workload.arrivals import LONGEST_NS, ArrivalProcess, Poisson, Streams, arrival_times

if TYPE_CHECKING:
    from collections.abc import Iterable


MOST = 1e9
"""No factor of rates and lengths is larger, or smaller than one over it."""


class Segment(NamedTuple):
    """A run of ``tokens`` tokens; the i-th has the identity (content, i)."""

    content: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRequest:
    """One request of a trace.

    offset_ns: arrival after the start of the run. slo_class: empty for the server's default class. kind: a label for
    reports. segments: what the prompt consists of, in order; their tokens add up to ``prompt_tokens``, and the output
    continues the last one. Two requests share a prefix as far as the identities of their tokens agree. Empty: a
    content of its own, shared with nobody. abort_ns: the client hangs up so long after arrival.
    """

    request_id: str
    offset_ns: int
    prompt_tokens: int
    output_tokens: int
    slo_class: str = ""
    kind: str = ""
    priority: int = 0
    segments: tuple[Segment, ...] = ()
    abort_ns: int | None = None

    @property
    def total_tokens(self) -> int:
        """Prompt and output together: what the model length must hold."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the order of their arrival.

    lines: where each one stands in the file it was read from, empty when it was not. Raises ConfigError when times
    descend, are negative or beyond ``LONGEST_NS``, when an id repeats, or when lines are given for some requests only.
    """

    name: str
    requests: tuple[TraceRequest, ...]
    lines: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.lines and len(self.lines) != len(self.requests):
            raise ConfigError(f"Trace {self.name!r}: every request needs a line, or none.")
        last, ids = 0, set[str]()
        for i, request in enumerate(self.requests):
            if request.offset_ns < last:
                before = "the start" if i == 0 else "the request before it"
                raise ConfigError(f"{self._place(i)} arrives before {before}: arrival times must ascend.")
            if request.request_id in ids:
                raise ConfigError(f"{self._place(i)} repeats an id: every request needs one of its own.")
            if request.offset_ns > LONGEST_NS:
                raise ConfigError(
                    f"{self._place(i)} arrives more than 100 years after the start: check its unit."
                )
            last = request.offset_ns
            ids.add(request.request_id)

    @property
    def span_ns(self) -> int:
        """Time from the first to the last arrival."""
        return self.requests[-1].offset_ns - self.requests[0].offset_ns if self.requests else 0

    @property
    def rate(self) -> float:
        """Mean arrivals a second; 0 when all arrive at once."""
        return (len(self.requests) - 1) * NS_PER_S / self.span_ns if self.span_ns else 0.0

    def scaled(self, factor: float) -> Trace:
        """The same requests at ``factor`` times the rate. Raises ConfigError unless the factor is positive."""
        _check_factor(factor, "rate")
        return self._with(replace(r, offset_ns=round(r.offset_ns / factor)) for r in self.requests)

    def resized(self, prompt: float = 1.0, output: float = 1.0) -> Trace:
        """Lengths multiplied by these factors, at least one token each; shared prefixes stay shared.

        Raises ConfigError unless the factors are positive.
        """
        _check_factor(prompt, "prompt length")
        _check_factor(output, "output length")
        return self._with(_resize(request, prompt, output) for request in self.requests)

    def with_class(self, slo_class: str) -> Trace:
        """The same requests, all of one SLO class."""
        return self._with(replace(request, slo_class=slo_class) for request in self.requests)

    def checked(self, max_model_len: int) -> Trace:
        """This trace, if a model of that length can serve it.

        Raises ConfigError that names the first request (and its line) with an empty prompt or output, with segments
        that do not add up to the prompt, or with more tokens than the model holds.
        """
        for i, request in enumerate(self.requests):
            if request.prompt_tokens < 1 or request.output_tokens < 1:
                raise ConfigError(
                    f"{self._place(i)} has {request.prompt_tokens} prompt and {request.output_tokens} output tokens: "
                    "each must be at least one."
                )
            parts = sum(segment.tokens for segment in request.segments)
            if request.segments and parts != request.prompt_tokens:
                raise ConfigError(
                    f"{self._place(i)} has segments of {parts} tokens for a prompt of {request.prompt_tokens}: they "
                    "must add up."
                )
            if request.total_tokens > max_model_len:
                raise ConfigError(
                    f"{self._place(i)} needs {request.total_tokens} tokens (prompt {request.prompt_tokens}, output "
                    f"{request.output_tokens}), more than the model length of {max_model_len}: scale the lengths "
                    "down (prompt_scale, output_scale of a workload file), or raise max_model_len."
                )
        return self

    def _with(self, requests: Iterable[TraceRequest]) -> Trace:
        return Trace(self.name, tuple(requests), self.lines)

    def _place(self, index: int) -> str:
        line = f" (line {self.lines[index]})" if self.lines else ""
        return f"Trace {self.name!r}: request {self.requests[index].request_id!r}{line}"


def with_arrivals(trace: Trace, rate: float, seed: int, process: ArrivalProcess | None = None) -> Trace:
    """The same requests at arrival times of a process (Poisson unless given) of that mean rate, requests a second.

    Raises ConfigError for a rate that is not positive or a trace without requests.
    """
    times = arrival_times(process or Poisson(), rate, len(trace.requests), Streams.of(seed).arrivals)
    requests = (replace(r, offset_ns=t) for r, t in zip(trace.requests, times, strict=True))
    return Trace(trace.name, tuple(requests), trace.lines)


def _check_factor(factor: float, what: str) -> None:
    if not 1 / MOST <= factor <= MOST:
        raise ConfigError(
            f"The factor of the {what} must be a number above zero (between {1 / MOST:g} and {MOST:g}), not {factor}."
        )


def _resize(request: TraceRequest, prompt: float, output: float) -> TraceRequest:
    segments = tuple(Segment(content, max(1, round(n * prompt))) for content, n in request.segments)
    length = max(1, round(request.prompt_tokens * prompt))
    return replace(
        request,
        prompt_tokens=sum(segment.tokens for segment in segments) if segments else length,
        output_tokens=max(1, round(request.output_tokens * output)),
        segments=segments,
    )
