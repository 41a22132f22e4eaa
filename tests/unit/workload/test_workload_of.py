"""From a trace to prompts: exact lengths, shared just where the segments say so."""

from __future__ import annotations

from sarathi_plugin.workload.kinds import make_trace
from sarathi_plugin.workload.synthetic import workload_of
from sarathi_plugin.workload.trace import Segment, Trace, TraceRequest


def test_lengths_times_and_classes_are_the_traces():
    trace = make_trace("mixed-classes", rate=2, count=50, seed=3)
    workload = workload_of(trace, 0)
    for asked, made in zip(trace.requests, workload.requests, strict=True):
        assert len(made.prompt) == made.prompt_tokens == asked.prompt_tokens
        assert (made.max_tokens, made.ignore_eos) == (asked.output_tokens, True)
        assert (made.offset_ns, made.slo_class, made.kind) == (asked.offset_ns, asked.slo_class, asked.kind)
    assert workload_of(trace, 0) == workload
    assert workload_of(trace, 1) != workload


def test_prompts_share_what_their_segments_share():
    def request(name: str, *segments: Segment) -> TraceRequest:
        total = sum(part.tokens for part in segments)
        return TraceRequest(
            request_id=name, offset_ns=0, prompt_tokens=total, output_tokens=1, segments=segments
        )

    trace = Trace("t", (
        request("a", Segment(-1, 40), Segment(5, 10)),
        request("b", Segment(-1, 60)),
        request("c", Segment(-1, 40), Segment(6, 10)),
    ))  # fmt: skip
    a, b, c = (made.prompt for made in workload_of(trace, 0).requests)
    assert a[:40] == b[:40] == c[:40]
    assert a[40:] != c[40:]
    assert len({a[40], b[40], c[40]}) > 1


def test_requests_without_segments_share_nothing():
    trace = make_trace("sharegpt-like", rate=1, count=20, seed=0)
    prompts = [made.prompt for made in workload_of(trace, 0).requests if len(made.prompt) > 16]
    assert len({prompt[:16] for prompt in prompts}) == len(prompts)
