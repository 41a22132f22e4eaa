import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.workload import Constant, Segment, Trace, TraceRequest, with_arrivals


def request(name="a", offset_ns=0, prompt=10, output=5, **more):
    return TraceRequest(
        request_id=name, offset_ns=offset_ns, prompt_tokens=prompt, output_tokens=output, **more
    )


def trace(*requests, lines=()):
    return Trace("t", requests, lines)


def test_span_and_rate():
    three = trace(request("a", NS_PER_S), request("b", 2 * NS_PER_S), request("c", 5 * NS_PER_S))
    assert three.span_ns == 4 * NS_PER_S
    assert three.rate == 0.5
    assert (trace().span_ns, trace().rate) == (0, 0.0)
    assert trace(request()).rate == 0.0


def test_scaled_times_only():
    one = trace(request("a", 100, abort_ns=7), request("b", 301), lines=(4, 5))
    half = one.scaled(0.5)
    assert half == trace(request("a", 200, abort_ns=7), request("b", 602))
    assert half.lines == (4, 5)
    assert one.scaled(2).requests[1].offset_ns == 150


def test_resized_lengths_stay_shared():
    first = request("a", prompt=1001, output=3, segments=(Segment(0, 1), Segment(1, 1000)))
    second = request("b", prompt=1601, output=30, segments=(Segment(0, 1), Segment(1, 1600)))
    small = trace(first, second).resized(0.25, 0.1)
    assert [r.segments for r in small.requests] == [
        (Segment(0, 1), Segment(1, 250)),
        (Segment(0, 1), Segment(1, 400)),
    ]
    assert [(r.prompt_tokens, r.output_tokens) for r in small.requests] == [(251, 1), (401, 3)]
    assert trace(request(prompt=10)).resized(2.5).requests[0].prompt_tokens == 25
    small.checked(1000)


def test_with_class():
    assert trace(request("a", slo_class="x"), request("b")).with_class("y") == trace(
        request("a", slo_class="y"), request("b", slo_class="y")
    )


def test_with_arrivals_is_seeded_and_changes_times_only():
    given = trace(*(request(str(i), prompt=i + 1) for i in range(200)))
    timed = with_arrivals(given, 2.0, 5)
    assert timed == with_arrivals(given, 2.0, 5)
    assert timed != with_arrivals(given, 2.0, 6)
    assert timed.rate == pytest.approx(2.0, rel=0.3)
    assert [r.prompt_tokens for r in timed.requests] == list(range(1, 201))
    steady = with_arrivals(given, 2.0, 5, Constant())
    assert [r.offset_ns for r in steady.requests[:2]] == [0, NS_PER_S // 2]


@pytest.mark.parametrize("factor", [0, -1, 1e-320, 1e308, float("nan"), float("inf")])
def test_bad_factors(factor):
    with pytest.raises(ConfigError, match="factor of the rate"):
        trace(request()).scaled(factor)
    with pytest.raises(ConfigError, match="factor of the prompt length"):
        trace(request()).resized(factor)
    with pytest.raises(ConfigError, match="factor of the output length"):
        trace(request()).resized(1, factor)


@pytest.mark.parametrize(
    ("requests", "lines", "message"),
    [
        ((request("a", 5), request("b", 4)), (2, 3), r"request 'b' \(line 3\) arrives before the request"),
        ((request("a", -1),), (), "request 'a' arrives before the start"),
        ((request("a"), request("a")), (), "request 'a' repeats an id"),
        ((request("a"), request("b")), (1,), "needs a line, or none"),
    ],
)
def test_bad_traces(requests, lines, message):
    with pytest.raises(ConfigError, match=message):
        Trace("t", requests, lines)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (request("b", prompt=0), "0 prompt and 5 output tokens: each must be at least one"),
        (request("b", output=0), "10 prompt and 0 output tokens"),
        (
            request("b", prompt=95, output=6),
            "needs 101 tokens .* more than the model length of 100.*prompt_scale.*max_model_len",
        ),
        (request("b", segments=(Segment(1, 9),)), "segments of 9 tokens for a prompt of 10"),
    ],
)
def test_checked_names_the_first_request_and_its_line(bad, message):
    fits = request("a", prompt=95, output=5, segments=(Segment(1, 95),))
    assert trace(fits).checked(100) == trace(fits)
    with pytest.raises(ConfigError, match=r"^Trace 't': request 'b' \(line 8\).*" + message):
        trace(fits, bad, request("c", prompt=0), lines=(7, 8, 9)).checked(100)
    with pytest.raises(ConfigError, match=r"^Trace 't': request 'b' .*" + message):
        trace(fits, bad).checked(100)
