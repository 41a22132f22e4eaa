import json
import math
import re

import numpy as np
import pytest

from sarathi_plugin.config import ConfigError, SloClassSettings
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.load.dispatch import dispatch_lag_ns
from sarathi_plugin.loadtest.assignment import Assignment
from sarathi_plugin.loadtest.plan import Amount, check_fits, duration_s, schedule, share_of, to_rows
from sarathi_plugin.loadtest.setup import Setup, Wanted, prepare
from sarathi_plugin.loadtest.target import Served
from sarathi_plugin.workload.spec import WorkloadSpec
from sarathi_plugin.workload.synthetic import workload_of

CHATS = WorkloadSpec(kind="sharegpt-like", prompt_scale=0.01, output_scale=0.01)


def assignment(trace, **fields) -> Assignment:
    known = {
        "url": "http://x",
        "model": "m",
        "vllm": True,
        "classes": {"standard": SloClassSettings(tbt_ms=100, ttft_slack_ms=1000)},
        "default_class": "standard",
        "curve": (0.0, 0.0, 0.0),
        "seed": 3,
        "name": trace.name,
        "rows": to_rows(trace),
    }
    return Assignment(**(known | fields))


@pytest.mark.parametrize("spec", [CHATS, WorkloadSpec(kind="agentic", prompt_scale=0.01, output_scale=0.01)])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_shares_add_up_to_the_same_requests_with_the_same_prompts(spec, workers):
    trace = schedule(spec, Amount(rate=20, requests=41), seed=3)
    whole = workload_of(spec.trace(20, 41, 3), 3)
    parts = []
    for index in range(workers):
        message = json.loads(json.dumps(assignment(share_of(trace, index, workers)).model_dump(mode="json")))
        parts += Assignment.model_validate(message).workload().requests
    assert sorted(parts, key=lambda r: r.offset_ns) == list(whole.requests)


def test_a_duration_is_filled_and_not_exceeded():
    trace = schedule(CHATS, Amount(rate=50, duration_s=30), seed=1)
    last = trace.requests[-1].offset_ns / NS_PER_S
    assert 29 < last < 30
    assert abs(len(trace.requests) - 1500) < 4 * math.sqrt(1500)
    assert len(schedule(CHATS, Amount(rate=1), seed=1).requests) == pytest.approx(60, abs=30)


@pytest.mark.parametrize("cv", [3, 30])
def test_bursts_do_not_end_a_run_early(cv: float):
    spec = WorkloadSpec(**CHATS.model_dump(exclude_unset=True), arrivals={"process": "gamma", "cv": cv})
    for seed in (1, 4, 9, 13):
        sent = schedule(spec, Amount(rate=2, duration_s=300), seed)
        all_of_them = [r for r in spec.trace(2, 12_000, seed).requests if r.offset_ns < 300 * NS_PER_S]
        assert len(sent.requests) == len(all_of_them)


def test_a_longer_run_begins_like_a_shorter_one():
    short = schedule(CHATS, Amount(rate=5, duration_s=10), seed=1).requests
    long = schedule(CHATS, Amount(rate=5, duration_s=20), seed=1).requests
    assert [r.offset_ns for r in long[: len(short)]] == [r.offset_ns for r in short]


def test_shaped_arrivals_keep_their_shape():
    ramp = WorkloadSpec.model_validate(
        {"kind": "sharegpt-like", "arrivals": {"process": "ramp", "start": 1, "end": 3}}
    )
    times = np.array([r.offset_ns for r in schedule(ramp, Amount(rate=50, duration_s=40), 1).requests])
    first, last = ((times < 10 * NS_PER_S).sum(), (times >= 30 * NS_PER_S).sum())
    assert last / first == pytest.approx(2.75 / 1.25, rel=0.2)


def test_intended_times_are_those_of_the_process():
    gaps = np.diff([0] + [r.offset_ns for r in schedule(CHATS, Amount(rate=10, duration_s=200), 7).requests])
    ordered = np.sort(gaps) / NS_PER_S
    theory = 1 - np.exp(-10 * ordered)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    distance = max(np.abs(steps[1:] - theory).max(), np.abs(theory - steps[:-1]).max())
    # Kolmogorov-Smirnov, one in a thousand
    assert distance < 1.95 / math.sqrt(len(ordered))


@pytest.mark.parametrize(
    ("spec", "amount", "words"),
    [
        (CHATS, Amount(), "give --rate"),
        (CHATS, Amount(rate=0.001, duration_s=0.001), "No request arrives"),
        (CHATS, Amount(rate=-1, requests=3), "above zero"),
        (CHATS, Amount(rate=1e6, duration_s=60), r"at most 10000000 requests, not 6.01e\+07: lower"),
        (CHATS, Amount(rate=1, requests=10**12), "at most 10000000 requests"),
    ],
)
def test_bad_amounts(spec, amount, words):
    with pytest.raises(ConfigError, match=words):
        schedule(spec, amount, 0)


@pytest.mark.parametrize(("text", "seconds"), [("1e3", 1000), ("1.5E1m", 900), ("5e-1h", 1800), ("90s", 90)])
def test_durations_take_exponents(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["1e", "e3s", "1e400", "1e-400", "-1e3"])
def test_bad_durations(text):
    with pytest.raises(ConfigError, match="--duration takes"):
        duration_s(text)


def test_requests_longer_than_the_model_are_refused_with_a_way_out():
    trace = schedule(WorkloadSpec(kind="sharegpt-like"), Amount(rate=1, requests=50), 0)
    check_fits(trace, 8192)
    with pytest.raises(ConfigError, match=r"of 50 requests need more than the model's 500 tokens .* --scale"):
        check_fits(trace, 500)


@pytest.mark.parametrize("chat", [True, False])
def test_words_for_servers_without_token_ids(chat):
    trace = schedule(CHATS, Amount(rate=1, requests=3), 0)
    requests = assignment(trace, text=True, chat=chat).workload().requests
    assert all(request.is_chat == chat for request in requests)
    for request, asked in zip(requests, trace.requests, strict=True):
        text = request.prompt[0].content if chat else request.prompt
        assert len(text.split()) == asked.prompt_tokens


def test_a_lost_request_fails_without_a_word_on_when_it_was_sent():
    trace = schedule(CHATS, Amount(rate=1, requests=3), 0)
    classes = {"standard": SloClassSettings(tbt_ms=100, ttft_slack_ms=1000)}
    served = Served("http://x", "m", 8192, True)
    setup = Setup(Wanted("http://x"), served, trace, 0, classes, "standard", PrefillCurve(0, 0, 0))
    start = 10 * NS_PER_S
    now = start + trace.requests[1].offset_ns + 1_950_000_000
    lost = setup.lost(trace.requests[1], start, now)
    assert (lost.status, lost.sent_ns, lost.met, lost.missed) == ("error", None, 0, 10)
    assert lost.arrival_ns == start + trace.requests[1].offset_ns
    assert dispatch_lag_ns([lost]) == 0
    early = setup.lost(trace.requests[1], start, start)
    assert (early.end_ns, early.missed) == (early.arrival_ns, 0)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("http://[::1"), "Give the server's address as http://HOST:PORT"),
        (
            Wanted("http://x", amount=Amount(rate=-1)),
            "--rate takes a number above zero and up to 1000000, not -1.",
        ),
        (
            Wanted("http://x", amount=Amount(rate=math.nan)),
            "--rate takes a number above zero and up to 1000000, not nan.",
        ),
        (Wanted("http://x", scale=0), "--scale takes a number above zero and up to 1000000, not 0."),
        (
            Wanted("http://x", timeout_s=math.inf),
            "--timeout takes a number above zero and up to 86400, not inf.",
        ),
        (
            Wanted("http://x", timeout_s=1e300),
            "--timeout takes a number above zero and up to 86400, not 1e+300.",
        ),
        (
            Wanted("http://x", silence_s=86_401),
            "--silence takes a number above zero and up to 86400, not 86401.",
        ),
        (Wanted("http://x", tbt_ms=1e13), "tbt_ms: Input should be less than or equal to 86400000"),
        (
            Wanted("http://x", ttft_slack_ms=1e13),
            "ttft_slack_ms: Input should be less than or equal to 86400000",
        ),
        (
            Wanted("http://x", "agentic", Amount(users=2, think_s=-1)),
            "--think takes a number of seconds up to 86400, not -1.",
        ),
    ],
)
def test_bad_numbers_and_addresses_are_a_sentence(wanted, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        prepare(wanted)
