import time
from itertools import pairwise

import numpy as np
import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.workload import KINDS, Constant, LengthModel, QuantileLengths, make_trace
from sarathi_plugin.workload.kinds import ARXIV_16K, Mix
from sarathi_plugin.workload.lengths import knots
from sarathi_plugin.workload.sessions import SYSTEM_TOKENS

DRAWS = 50_000
PUBLISHED = [
    (kind.name, part)
    for kind in KINDS.values()
    if isinstance(kind.source, Mix)
    for part in kind.source.parts
    if part.lengths.prompt.figures
]


def requests_of(kind, count=300, seed=0, rate=2.0):
    return make_trace(kind, rate=rate, count=count, seed=seed).requests


def content(request):
    """A request without its arrival."""
    fields = ("request_id", "prompt_tokens", "output_tokens", "slo_class", "kind", "priority", "segments")
    return tuple(getattr(request, field) for field in fields)


def test_the_promised_kinds():
    assert set(KINDS) == {
        "sharegpt-like",
        "arxiv-like",
        "azure-conv-like",
        "mixed-classes",
        "agentic",
        "chat-sessions",
        "long-context",
        "spiky",
    }
    assert {name for name, _ in PUBLISHED} == set(KINDS) - {"agentic", "chat-sessions", "long-context"}


@pytest.mark.parametrize(("kind", "part"), PUBLISHED, ids=[f"{k}-{p.kind}" for k, p in PUBLISHED])
@pytest.mark.parametrize("seed", [0, 7])
def test_lengths_have_the_published_figures(kind, part, seed):
    requests = [r for r in requests_of(kind, round(DRAWS / part.share), seed) if r.kind == part.kind]
    assert len(requests) == pytest.approx(DRAWS, rel=0.03)
    prompts = np.array([request.prompt_tokens for request in requests])
    outputs = np.array([request.output_tokens for request in requests])
    for lengths, drawn in ((part.lengths.prompt, prompts), (part.lengths.output, outputs)):
        figures = lengths.figures
        assert np.median(drawn) == pytest.approx(figures.median, rel=0.03)
        assert np.percentile(drawn, 90) == pytest.approx(figures.p90, rel=0.03)
        assert drawn.std() == pytest.approx(figures.std, rel=0.03)
        if figures.p99:
            assert np.percentile(drawn, 99) == pytest.approx(figures.p99, rel=0.03)


def test_the_figures_are_those_of_the_sources():
    figures = {
        name: (part.lengths.prompt.figures, part.lengths.output.figures)
        for name, part in PUBLISHED
        if part.share == 1
    }
    sharegpt = ((1730, 5696, 2088, None), (415, 834, 266, None))
    assert figures == {
        "sharegpt-like": sharegpt,
        "spiky": sharegpt,
        "arxiv-like": ((7059, 12985, 3638, None), (208, 371, 265, None)),
        "azure-conv-like": ((1020, 2734.5, 1109, 4142), (129, 424, 163, 601)),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_fits_its_model_and_is_quick(kind):
    make_trace(kind, rate=1, count=10, seed=0)
    times = []
    for seed in range(5):
        start = time.process_time()
        trace = make_trace(kind, rate=1, count=1000, seed=seed)
        times.append(time.process_time() - start)
        trace.checked(KINDS[kind].max_total_tokens)
    assert min(times) < 0.05
    assert max(r.total_tokens for r in trace.requests) > KINDS[kind].max_total_tokens / 4


@pytest.mark.parametrize("kind", KINDS)
def test_rate_and_arrivals_change_nothing_but_the_times(kind):
    slow, fast = requests_of(kind, rate=0.5), requests_of(kind, rate=4.0)
    steady = make_trace(kind, rate=4.0, count=300, seed=0, arrivals=Constant()).requests
    assert [content(r) for r in slow] == [content(r) for r in fast] == [content(r) for r in steady]
    assert [r.offset_ns for r in slow] == pytest.approx([r.offset_ns * 8 for r in fast], abs=8)
    assert [r.offset_ns for r in steady[:3]] == [0, NS_PER_S // 4, NS_PER_S // 2]
    assert [content(r) for r in requests_of(kind, seed=1)] != [content(r) for r in slow]
    assert requests_of(kind, seed=1)[5].offset_ns != requests_of(kind, seed=2)[5].offset_ns


@pytest.mark.parametrize("kind", KINDS)
def test_more_requests_only_add_to_them(kind):
    assert [content(r) for r in requests_of(kind, 300)[:100]] == [content(r) for r in requests_of(kind, 100)]


def test_mixed_classes():
    requests = requests_of("mixed-classes", 10_000)
    seen = {(r.kind, r.slo_class) for r in requests}
    assert seen == {("chat", "interactive"), ("document", "batch")}
    assert KINDS["mixed-classes"].slo_classes == ("interactive", "batch")
    assert sum(r.kind == "chat" for r in requests) == pytest.approx(7000, rel=0.03)


def test_spiky_is_sharegpt_in_bursts():
    spiky, steady = requests_of("spiky", 20_000), requests_of("sharegpt-like", 20_000)
    assert [(r.prompt_tokens, r.output_tokens) for r in spiky] == [
        (r.prompt_tokens, r.output_tokens) for r in steady
    ]
    gaps = np.diff([r.offset_ns for r in spiky])
    assert gaps.std() / gaps.mean() == pytest.approx(3, rel=0.1)


def test_long_context_is_long():
    prompts = [r.prompt_tokens for r in requests_of("long-context", 2000)]
    assert min(prompts) >= 4096
    assert np.median(prompts) == pytest.approx(24_000, rel=0.1)
    assert max(prompts) > 120_000


def test_agents_share_system_prompts_and_grow_their_context():
    requests = requests_of("agentic", 3000)
    sessions = {}
    for place, request in enumerate(requests):
        system, context = request.segments
        assert system.tokens == SYSTEM_TOKENS[system.content]
        assert context.content >= len(SYSTEM_TOKENS)
        assert system.tokens + context.tokens == request.prompt_tokens
        sessions.setdefault(context.content, []).append((place, request))
    assert {r.segments[0].content for r in requests} == set(range(len(SYSTEM_TOKENS)))
    assert max(len(turns) for turns in sessions.values()) <= 20
    for turns in sessions.values():
        for (place, earlier), (later_place, later) in pairwise(turns):
            assert later.segments[0] == earlier.segments[0]
            assert later.segments[1].tokens > earlier.segments[1].tokens + earlier.output_tokens
            assert later_place - place > 8
    # The first requests look like the later ones.
    assert np.mean([r.prompt_tokens for r in requests[:100]]) == pytest.approx(
        np.mean([r.prompt_tokens for r in requests]), rel=0.2
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "chatty"}, "No kind of workload 'chatty': use one of sharegpt-like, "),
        ({"rate": 0}, "rate must be above zero"),
        ({"count": 0}, "at least one request"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_bad_requests_for_a_trace(given, message):
    with pytest.raises(ConfigError, match=message):
        make_trace(**({"kind": "spiky", "rate": 1.0, "count": 5, "seed": 0} | given))


def test_quantiles_between_their_knots():
    lengths = QuantileLengths(knots("0:10 50:20 100:120"))
    assert lengths.at(np.array([0.0, 0.25, 0.5, 0.75, 1.0])).tolist() == [10, 15, 20, 70, 120]


def test_outputs_are_cut_to_the_model():
    model = LengthModel(
        QuantileLengths(knots("0:1 100:90")), QuantileLengths(knots("0:1 100:50")), 100, "here"
    )
    prompts, outputs = model.at(np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    assert (prompts.tolist(), outputs.tolist()) == ([1, 90], [50, 10])


@pytest.mark.parametrize(
    "text", ["0:5", "0:5 90:6", "1:5 100:6", "0:5 50:6 50:7 100:8", "0:5 60:6 50:7 100:8"]
)
def test_bad_percents(text):
    with pytest.raises(ConfigError, match="ascend from 0 to 100"):
        QuantileLengths(knots(text))


@pytest.mark.parametrize("text", ["0:0 100:5", "0:5 100:4"])
def test_bad_tokens(text):
    with pytest.raises(ConfigError, match="must not fall"):
        QuantileLengths(knots(text))


def test_a_prompt_must_leave_room():
    with pytest.raises(ConfigError, match="leaves no room"):
        LengthModel(ARXIV_16K.prompt, ARXIV_16K.output, 16_300, "here")
