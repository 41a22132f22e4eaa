import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.workload import KINDS, Gamma, load_workload, make_trace
from sarathi_plugin.workload.spec import shipped

TIMED = "arrived_at,num_prefill_tokens,num_decode_tokens\n" + "".join(
    f"{i * 0.5},{i + 10},{i + 1}\n" for i in range(40)
)
UNTIMED = "num_prefill_tokens,num_decode_tokens\n" + "".join(f"{i + 10},{i + 1}\n" for i in range(40))
SHARED = "".join(
    f'{{"timestamp": {i * 500}, "input_length": 600, "output_length": 5, "hash_ids": [0, {i + 1}]}}\n'
    for i in range(20)
)


@pytest.fixture
def load(tmp_path):
    (tmp_path / "timed.csv").write_text(TIMED)
    (tmp_path / "untimed.csv").write_text(UNTIMED)
    (tmp_path / "shared.jsonl").write_text(SHARED)

    def load_text(text):
        (tmp_path / "workload.yaml").write_text(text)
        return load_workload(tmp_path / "workload.yaml")

    return load_text


def prompts(trace):
    return [request.prompt_tokens for request in trace.requests]


def times(trace):
    return [request.offset_ns for request in trace.requests]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_works_like_a_file(kind):
    assert load_workload(kind).trace(rate=3, requests=20, seed=4) == make_trace(
        kind, rate=3, count=20, seed=4
    )
    assert len(load_workload(kind).trace(rate=3).requests) == 1000


def test_arguments_override_the_file(load):
    spec = load("{kind: spiky, rate: 2, requests: 10, seed: 3}")
    assert spec.trace() == make_trace("spiky", rate=2, count=10, seed=3)
    assert spec.trace(5, 7, 0) == make_trace("spiky", rate=5, count=7, seed=0)


def test_arrivals_of_a_kind(load):
    spec = load("{kind: arxiv-like, rate: 2, requests: 50, arrivals: {process: gamma, cv: 4}}")
    assert spec.arrivals == Gamma(cv=4)
    assert spec.trace() == make_trace("arxiv-like", rate=2, count=50, seed=0, arrivals=Gamma(cv=4))


@pytest.mark.parametrize("process", ["poisson", "constant", "ramp", "step", "diurnal", "gamma"])
def test_every_process_can_be_named(load, process):
    trace = load(f"{{kind: arxiv-like, rate: 4, requests: 2000, arrivals: {{process: {process}}}}}").trace()
    assert trace.rate == pytest.approx(4, rel=0.15)


def test_scales_and_class(load):
    plain = load("{kind: sharegpt-like, rate: 1, requests: 50}").trace()
    spec = load(
        "{kind: sharegpt-like, rate: 1, requests: 50, prompt_scale: 0.5, output_scale: 2, slo_class: x}"
    )
    assert spec.trace() == plain.resized(0.5, 2).with_class("x")
    no_class = load("{kind: mixed-classes, rate: 1, requests: 50, slo_class: ''}").trace()
    assert {request.slo_class for request in no_class.requests} == {""}


def test_a_timed_trace_is_replayed(load):
    trace = load("trace: timed.csv").trace()
    assert times(trace) == [i * NS_PER_S // 2 for i in range(40)]
    assert prompts(trace) == list(range(10, 50))
    assert load("{trace: timed.csv, requests: 5}").trace() == load("trace: timed.csv").trace(requests=5)
    assert prompts(load("{trace: timed.csv, requests: 5}").trace(seed=9)) == [10, 11, 12, 13, 14]


def test_speed_and_rate_of_a_replay(load):
    assert load("{trace: timed.csv, speed: 2}").trace().rate == pytest.approx(4)
    assert load("{trace: timed.csv, speed: 2}").trace(rate=1).rate == pytest.approx(1)
    assert load("{trace: timed.csv, rate: 8, arrivals: {process: trace}}").trace().rate == pytest.approx(8)
    assert times(load("{trace: timed.csv, requests: 1, rate: 8}").trace()) == [0]


def test_rows_with_new_arrivals_are_picked_by_the_seed(load):
    for name, arrivals in (("untimed", ""), ("timed", ", arrivals: {process: poisson}")):
        spec = load(f"{{trace: {name}.csv, rate: 2, requests: 30{arrivals}}}")
        one, faster, other = spec.trace(), spec.trace(rate=4), spec.trace(seed=1)
        assert prompts(one) == prompts(faster) != prompts(other)
        assert len(set(prompts(one))) == 30
        assert set(prompts(one)) < set(range(10, 50))
        assert times(one) == pytest.approx([2 * t for t in times(faster)], abs=2)
        line_of = dict(zip(prompts(one), one.lines, strict=True))
        assert all(line == prompt - 8 for prompt, line in line_of.items())


@pytest.mark.parametrize(
    ("text", "varies"),
    [
        ("{kind: sharegpt-like, rate: 1}", True),
        ("trace: timed.csv", False),
        ("{trace: timed.csv, rate: 8, arrivals: {process: trace}}", False),
        ("{trace: timed.csv, rate: 2, arrivals: {process: poisson}}", True),
        ("{trace: untimed.csv, rate: 2}", True),
    ],
)
def test_a_replay_is_the_same_under_every_seed(load, text: str, varies: bool):
    spec = load(text)
    assert spec.varies is varies
    assert (spec.trace(2, 20, seed=1).requests != spec.trace(2, 20, seed=2).requests) is varies


def test_shared_content_keeps_its_order(load):
    trace = load("{trace: shared.jsonl, rate: 2, requests: 9, arrivals: {process: gamma}}").trace(seed=2)
    assert [request.segments[1].content for request in trace.requests] == list(range(1, 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: 2", "give either kind or trace"),
        ("{kind: spiky, trace: timed.csv}", "give either kind or trace"),
        ("kind: chatty", "no kind of workload 'chatty': use one of sharegpt-like"),
        ("{kind: spiky, rate: 0}", "rate: Input should be greater than 0, got 0"),
        ("{kind: spiky, colour: red}", "colour: this key is not known"),
        ("{kind: spiky, arrivals: {process: trace}}", "arrivals of process trace need a trace"),
        (
            "{kind: spiky, arrivals: {process: gamma, cv: -1}}",
            "arrivals.gamma.cv: Input should be greater than or equal to 0.001",
        ),
        (
            "{kind: spiky, arrivals: {process: gamma, burst: 1}}",
            "arrivals.gamma.burst: this key is not known",
        ),
        ("{kind: spiky, arrivals: {process: sometimes}}", "arrivals: .*'poisson'"),
        ("{kind: spiky, speed: 2}", "speed replays the arrivals of a trace"),
        (
            "{trace: timed.csv, speed: 2, arrivals: {process: poisson}}",
            "speed replays the arrivals of a trace",
        ),
        ("{trace: timed.csv, speed: 2, rate: 1}", "give either rate or speed"),
        ("{kind: spiky, requests: 0}", "requests: Input should be greater than or equal to 1"),
    ],
)
def test_bad_files(load, text, message):
    with pytest.raises(ConfigError, match=rf"workload\.yaml: {message}"):
        load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: spiky", "'spiky' needs a rate"),
        ("trace: none.csv", r"Cannot read .*none\.csv"),
        ("trace: untimed.csv", r"untimed\.csv needs a rate"),
        ("{trace: untimed.csv, rate: 2, arrivals: {process: trace}}", "has no arrival times to replay"),
        ("{trace: timed.csv, requests: 41}", "holds 40 requests, fewer than the 41 asked"),
        ("{trace: untimed.csv, requests: 41, rate: 2}", "holds 40 requests, fewer than the 41 asked"),
    ],
)
def test_workloads_that_cannot_be_built(load, text, message):
    spec = load(text)
    with pytest.raises(ConfigError, match=message):
        spec.trace()


def test_an_unknown_name():
    with pytest.raises(ConfigError, match=r"No workload 'nothing': give the path .* one of sharegpt-like"):
        load_workload("nothing")


def test_workloads_that_come_along():
    files = shipped()
    assert {"sharegpt-like", "arxiv-like", "mixed-classes", "long-context", "spiky", "agentic"} <= set(files)
    for name, path in files.items():
        spec = load_workload(name)
        assert spec == load_workload(path)
        assert spec.kind == name  # a file of a kind's name is that kind
        assert spec.rate
        assert len(spec.trace(requests=20).requests) == 20
