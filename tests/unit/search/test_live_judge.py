"""A running server as the judge: a made-up one of known capacity is found out, a lost run is cut short."""

from __future__ import annotations

import threading
import time

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS, NS_PER_S, SloClass
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.load.client import Endpoint, Outcome
from sarathi_plugin.load.server import ServerError
from sarathi_plugin.load.stream import CompletionStream
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.search import live
from sarathi_plugin.search.criteria import Fluid
from sarathi_plugin.search.live import LiveJudge, endpoint_of, marks_of
from sarathi_plugin.search.repeats import in_sequence
from sarathi_plugin.workload.arrivals import Constant
from sarathi_plugin.workload.spec import WorkloadSpec

SLO = SloClass("standard", 50 * NS_PER_MS, 20 * NS_PER_MS)
TARGETS = Targets(SLO, PrefillCurve(0, 0, 0))
SPEC = WorkloadSpec(kind="sharegpt-like", arrivals=Constant(), prompt_scale=0.01, output_scale=0.01)


class MadeUp:
    """Answers ``rate`` requests a second, one after another, each with a single burst of tokens."""

    rate = 200.0
    error = ""

    def __init__(self, endpoint: Endpoint, targets: Targets) -> None:
        self.endpoint, self.targets = endpoint, targets
        self.free_ns, self.sent = 0, 0
        self.lock = threading.Lock()

    def send(self, request, arrival_ns: int | None = None) -> Outcome:
        now = time.monotonic_ns()
        arrival = now if arrival_ns is None else arrival_ns
        with self.lock:
            self.sent += 1
            self.free_ns = max(self.free_ns, arrival) + round(NS_PER_S / self.rate)
            done = self.free_ns
        stream = CompletionStream()
        if not self.error:
            stream.take('{"choices": [{"text": "a", "finish_reason": "length"}]}', done)
        timeline = self.targets.timeline(
            request, stream, arrival_ns=arrival, sent_ns=arrival, end_ns=done,
            status="error" if self.error else "finished", error=self.error,
        )  # fmt: skip
        return Outcome(request, timeline)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> type[MadeUp]:
    class Own(MadeUp):
        pass

    monkeypatch.setattr(live, "StreamingClient", Own)
    return Own


def judge_of(requests: int = 60) -> LiveJudge:
    return LiveJudge(
        Endpoint("http://127.0.0.1:1", "m"), 8192, TARGETS,
        lambda rate, seed: SPEC.trace(rate, requests, seed), Fluid(share=0.95),
    )  # fmt: skip


def test_the_capacity_of_a_known_server_is_found(made_up: type[MadeUp]):
    judge = judge_of()
    judge.warm_up(100)
    found = in_sequence(judge, [0, 1], start=60, resolution=0.05)
    # Every request may wait 20 ms, which lets 60 of them come a little faster than they are served.
    assert 200 <= found.rate <= 220
    assert found.limits == [("standard: first tokens late", 2)]
    assert {seed for _, seed in judge.timelines} == {0, 1}


def test_a_lost_run_is_cut_short(made_up: type[MadeUp]):
    made_up.rate = 5.0
    judge = judge_of(requests=400)
    begin = time.monotonic()
    verdict = judge(20.0, 0)
    assert time.monotonic() - begin < 6  # the whole run would take 20 s
    assert not verdict.passed
    assert "at most" in verdict.reason
    assert verdict.fluid_share < 0.95
    assert judge._client.sent < 150
    assert judge.timelines == {}


def test_a_server_that_is_gone_is_no_capacity_of_zero(made_up: type[MadeUp]):
    judge = judge_of()
    made_up.error = "connect: Connection refused"
    with pytest.raises(ServerError, match="does not answer any more: connect: Connection refused"):
        judge(50.0, 0)
    with pytest.raises(ConfigError, match="refuses the workload: connect"):
        judge.warm_up(50.0)


def test_a_client_that_lags_is_told(made_up: type[MadeUp]):
    judge = judge_of(requests=10)
    judge(100.0, 0)
    timelines = judge.timelines[100.0, 0]
    assert marks_of(timelines) == ()
    late = tuple(
        type(t)(
            **{name: getattr(t, name) for name in t.__slots__} | {"sent_ns": t.arrival_ns + 30 * NS_PER_MS}
        )
        for t in timelines
    )
    assert marks_of(late) == ("the client sent up to 30 ms late",)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://[::1", "Give the server's address as http://HOST:PORT, not 'http://[::1'."),
        ("localhost:8000", "Give the server's address as http://HOST:PORT, not 'localhost:8000'."),
        ("http://127.0.0.1:1", "No vLLM server answers at http://127.0.0.1:1 (ConnectionError)."),
    ],
)
def test_an_address_where_nobody_answers_is_told(url: str, sentence: str):
    with pytest.raises(ConfigError) as caught:
        endpoint_of(url)
    assert str(caught.value) == sentence
