"""Traces survive disk and scaling; whatever the seed, a kind's requests fit its model."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sarathi_plugin.workload import (
    KINDS,
    Constant,
    Diurnal,
    Gamma,
    Poisson,
    Ramp,
    Segment,
    Step,
    Trace,
    TraceRequest,
    make_trace,
    read_trace,
    with_arrivals,
    write_trace,
)

SEGMENTS = st.lists(st.builds(Segment, st.integers(0, 5), st.integers(1, 3000)), max_size=4).map(tuple)
POSITIVE = st.floats(0.01, 20)
PROCESSES = st.one_of(
    st.builds(Poisson),
    st.builds(Constant),
    st.builds(Gamma, cv=st.floats(0.1, 10)),
    st.builds(Ramp, start=POSITIVE, end=POSITIVE),
    st.builds(Step, levels=st.lists(POSITIVE, min_size=1, max_size=5).map(tuple)),
    st.builds(Diurnal, amplitude=st.floats(0, 1), cycles=st.floats(0.1, 5)),
)


@st.composite
def traces(draw):
    offset, requests = 0, []
    for name in draw(st.lists(st.text(max_size=5), min_size=1, max_size=8, unique=True)):
        offset += draw(st.integers(0, 10**12))
        segments = draw(SEGMENTS)
        requests.append(
            TraceRequest(
                request_id=name,
                offset_ns=offset,
                prompt_tokens=sum(s.tokens for s in segments) or draw(st.integers(1, 10**6)),
                output_tokens=draw(st.integers(1, 10**6)),
                slo_class=draw(st.sampled_from(["", "interactive"])),
                kind=draw(st.text(max_size=5)),
                priority=draw(st.integers(-5, 5)),
                segments=segments,
                abort_ns=draw(st.none() | st.integers(1, 10**12)),
            )
        )
    return Trace("trace", tuple(requests))


def tokens(request: TraceRequest) -> list[tuple[int, int]]:
    """The identity of every prompt token."""
    return [(segment.content, i) for segment in request.segments for i in range(segment.tokens)]


def shared(one: TraceRequest, two: TraceRequest) -> int:
    """Tokens of the longest common prefix."""
    pairs = zip(tokens(one), tokens(two), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(tokens(one)), len(tokens(two))))


@given(traces())
def test_what_is_written_is_read(trace):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        write_trace(path, trace)
        assert read_trace(path) == trace


@given(traces(), st.floats(0.01, 100))
def test_scaling_and_back(trace, factor):
    there = trace.scaled(factor)
    back = there.scaled(1 / factor)
    for before, scaled, after in zip(trace.requests, there.requests, back.requests, strict=True):
        assert abs(scaled.offset_ns * factor - before.offset_ns) <= factor + 1e-3
        assert abs(after.offset_ns - before.offset_ns) <= factor + 1
        assert scaled.total_tokens == before.total_tokens


@settings(deadline=None)
@given(traces(), st.floats(0.05, 3), st.floats(0.05, 3))
def test_resized_prompts_add_up_and_share_as_much(trace, prompt, output):
    resized = trace.resized(prompt, output).checked(10**9)
    for one, small in zip(trace.requests, resized.requests, strict=True):
        assert abs(small.prompt_tokens - one.prompt_tokens * prompt) <= max(1, len(one.segments))
        assert [s.content for s in small.segments] == [s.content for s in one.segments]
    first, small_first = trace.requests[0], resized.requests[0]
    for other, small_other in zip(trace.requests[1:], resized.requests[1:], strict=True):
        assert shared(small_first, small_other) >= (shared(first, other) * prompt) - 5


@given(PROCESSES, st.integers(1, 300), st.integers(0, 1000), st.floats(0.01, 100))
def test_arrivals_ascend_and_only_scale_with_the_rate(process, count, seed, rate):
    plain = Trace(
        "t",
        tuple(
            TraceRequest(request_id=str(i), offset_ns=0, prompt_tokens=1, output_tokens=1)
            for i in range(count)
        ),
    )
    unit, timed = with_arrivals(plain, 1.0, seed, process), with_arrivals(plain, rate, seed, process)
    for one, other in zip(unit.requests, timed.requests, strict=True):
        assert abs(other.offset_ns * rate - one.offset_ns) <= rate + 1
    assert unit.requests[0].offset_ns >= 0


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(KINDS)), st.integers(1, 200), st.integers(0, 10**6), st.floats(0.01, 100))
def test_every_kind_fits_its_model_whatever_the_seed(kind, count, seed, rate):
    trace = make_trace(kind, rate=rate, count=count, seed=seed)
    assert len(trace.requests) == count
    assert trace.checked(KINDS[kind].max_total_tokens) == make_trace(kind, rate=rate, count=count, seed=seed)
    assert {request.slo_class for request in trace.requests} <= {*KINDS[kind].slo_classes, ""}
