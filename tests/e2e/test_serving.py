"""A real ``vllm serve --scheduler ...``: what /metrics says must be what happened, with one API server and with two."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import requests

from sarathi_plugin.config import BUILTIN_CLASSES, load_curve
from sarathi_plugin.deadlines import count_deadlines, inter_token_times, overdue_periods
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.dispatch import run_open_loop
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.telemetry.recording import Recording, read_recording
from sarathi_plugin.workload.arrivals import poisson_arrivals
from sarathi_plugin.workload.model import ScheduledRequest, Workload
from sarathi_plugin.workload.synthetic import random_prompt
from tests.e2e.support import MODEL, Metrics, stalling_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sarathi_plugin.load.dispatch import RunResult
    from sarathi_plugin.load.server import RunningServer
    from sarathi_plugin.records import RequestTimeline

pytestmark = [pytest.mark.vllm, pytest.mark.server]

REQUESTS, ABORTED, RATE = 200, 12, 5.0
STALL_S = 10
RECORD = "record.jsonl.gz"
CLASSES = {name: spec.build(name) for name, spec in BUILTIN_CLASSES.items()}


@pytest.fixture(scope="module", params=[1, 2], ids=["one API server", "two API servers"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server that records, with a plugin that can stop its engine for ten seconds."""
    folder = tmp_path_factory.mktemp("serving")
    more = ("--sarathi-record", str(folder / RECORD), "--api-server-count", str(request.param))
    with stalling_server(folder, "sarathi", STALL_S, *more, streams=4) as running:
        yield running


def record_of(server: RunningServer) -> Path:
    return server.log.parent / RECORD


def make_client(server: RunningServer) -> StreamingClient:
    targets = Targets(CLASSES["standard"], load_curve("a100-llama-3-8b"), CLASSES)
    return StreamingClient(Endpoint(server.url, MODEL), targets)


def make_workload(rng: np.random.Generator) -> Workload:
    classes = ["", "interactive", "standard", "batch"]
    return Workload.ordered(
        "mixed",
        [
            ScheduledRequest(
                request_id=f"r{i}",
                offset_ns=offset,
                prompt=random_prompt(prompt := int(rng.integers(4, 200)), rng),
                prompt_tokens=prompt,
                max_tokens=int(rng.integers(2, 24)),
                ignore_eos=True,
                slo_class=classes[i % 4],
            )
            for i, offset in enumerate(poisson_arrivals(RATE, REQUESTS, rng))
        ],
    )


def hang_up(server: RunningServer, rng: np.random.Generator) -> None:
    """A client that goes away after the first bytes of an answer so long that even a starved server notices in time."""
    body = {"model": MODEL, "prompt": list(random_prompt(300, rng)), "max_tokens": 7800, "ignore_eos": True}
    with requests.Session() as session:
        session.trust_env = False
        with session.post(
            f"{server.url}/v1/completions", json=body | {"stream": True}, stream=True
        ) as answer:
            next(answer.iter_content(64))


def wait_until_quiet(server: RunningServer, requests_ended: int) -> Metrics:
    deadline = time.monotonic() + 60
    while True:
        metrics = Metrics(server.url)
        if metrics.total("sarathi_requests_finished_total") >= requests_ended or time.monotonic() > deadline:
            return metrics
        time.sleep(0.3)


def wait_for_record(server: RunningServer, requests_ended: int) -> Recording:
    """The recorder flushes twice a second, later where its thread is starved."""
    deadline = time.monotonic() + 60
    while True:
        recording = read_recording(record_of(server))
        if len(recording.timelines) >= requests_ended or time.monotonic() > deadline:
            return recording
        time.sleep(0.5)


@pytest.fixture(scope="module")
def run(server: RunningServer) -> tuple[RunResult, Metrics, Recording]:
    """200 streamed requests, some more that are hung up on; then the metrics, and the engine's own record."""
    rng = np.random.default_rng(7)
    workload = make_workload(rng)
    hangups = [threading.Timer(2.0 * i, hang_up, (server, np.random.default_rng(i))) for i in range(ABORTED)]
    for timer in hangups:
        timer.start()
    result = run_open_loop(workload, make_client(server).send)
    for timer in hangups:
        timer.join()
    metrics = wait_until_quiet(server, REQUESTS + ABORTED)
    return result, metrics, wait_for_record(server, REQUESTS + ABORTED)


def test_every_request_was_answered(run: tuple[RunResult, Metrics, Recording]) -> None:
    result, _, _ = run
    assert [(t.request_id, t.status, t.error) for t in result.timelines if t.status != "finished"] == []
    assert len(result.timelines) == REQUESTS


def test_the_sums_on_metrics_are_those_of_the_engines_own_timestamps(
    run: tuple[RunResult, Metrics, Recording],
) -> None:
    _, metrics, recording = run
    curve = load_curve("a100-llama-3-8b")
    met: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    ended: Counter[tuple[str, str]] = Counter()
    for timeline in recording.timelines:
        slo = CLASSES[timeline.slo_class]
        first_ns = curve.prefill_ns(timeline.prompt_tokens) + slo.ttft_slack_ns
        times = inter_token_times(timeline.arrival_ns, timeline.token_ns)
        count = count_deadlines(times, first_ns, slo.tbt_ns)
        late = 0
        if timeline.status != "finished":
            late = overdue_periods(timeline.end_ns, next_deadline(timeline, first_ns, slo.tbt_ns), slo.tbt_ns)
        met[slo.name] += count.met
        missed[slo.name] += count.missed + late
        tokens[slo.name] += len(timeline.token_ns)
        ended[slo.name, timeline.status] += 1
        assert (timeline.met, timeline.missed) == (count.met, count.missed + late)
    assert sum(ended.values()) == REQUESTS + ABORTED
    assert sum(n for (_, status), n in ended.items() if status == "aborted") == ABORTED
    for name in CLASSES:
        assert metrics.total("sarathi_deadlines_met_total", slo_class=name) == met[name]
        assert metrics.total("sarathi_deadlines_missed_total", slo_class=name) == missed[name]
        assert metrics.total("sarathi_output_tokens_total", slo_class=name) == tokens[name]
    for (name, status), number in ended.items():
        assert metrics.total("sarathi_requests_finished_total", slo_class=name, status=status) == number
    assert metrics.total("sarathi_plugin_errors_total") == 0
    assert metrics.total("sarathi_policy_fallbacks_total") == 0


def next_deadline(timeline: object, first_ns: int, tbt_ns: int) -> int:
    """When the token that never came was due, by the paper's rule, token by token."""
    due = timeline.arrival_ns + first_ns  # type: ignore[attr-defined]
    for token_ns in timeline.token_ns:  # type: ignore[attr-defined]
        due = max(due, token_ns) + tbt_ns if token_ns <= due else token_ns + tbt_ns
    return due


def test_the_client_counts_the_same_tokens(run: tuple[RunResult, Metrics, Recording]) -> None:
    result, _, recording = run
    finished = [t for t in recording.timelines if t.status == "finished"]
    assert sum(len(t.token_ns) for t in result.timelines) == sum(len(t.token_ns) for t in finished)


def test_the_client_is_never_ahead_of_the_engine(run: tuple[RunResult, Metrics, Recording]) -> None:
    """Both read one clock: a request is sent before it arrives, and a token is computed before it is received."""
    result, _, recording = run
    served = {t.request_id.split("-")[2]: t for t in recording.timelines if t.status == "finished"}
    assert len(served) == REQUESTS
    for timeline in result.timelines:
        engine = served[timeline.request_id]
        assert timeline.sent_ns is not None
        assert timeline.arrival_ns <= timeline.sent_ns <= engine.arrival_ns
        assert all(made <= got for made, got in zip(engine.token_ns, timeline.token_ns, strict=True))


def test_the_client_sees_the_same_fluidity(
    server: RunningServer, run: tuple[RunResult, Metrics, Recording]
) -> None:
    """Within 0.02, in one of three attempts: what else the machine does can only add to the difference."""
    result, _, recording = run
    seen = [(fluidity(result.timelines), fluidity(finished_since(recording, 0)))]
    while len(seen) < 3 and abs(seen[-1][0] - seen[-1][1]) > 0.02:
        begin_ns = time.monotonic_ns()
        result = run_open_loop(make_workload(np.random.default_rng(len(seen))), make_client(server).send)
        deadline = time.monotonic() + 60
        while len(served := finished_since(read_recording(record_of(server)), begin_ns)) < REQUESTS:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        seen.append((fluidity(result.timelines), fluidity(served)))
    ours, theirs = seen[-1]
    assert ours == pytest.approx(theirs, abs=0.02), seen


def fluidity(timelines: Iterable[RequestTimeline]) -> float:
    """Deadlines met / all of them."""
    met, missed = map(sum, zip(*((t.met, t.missed) for t in timelines), strict=True))
    return met / (met + missed)


def finished_since(recording: Recording, begin_ns: int) -> list[RequestTimeline]:
    return [t for t in recording.timelines if t.status == "finished" and t.arrival_ns >= begin_ns]


def test_nothing_of_ours_stays_overdue(server: RunningServer, run: object) -> None:
    time.sleep(0.6)
    assert Metrics(server.url).total("sarathi_requests_overdue") == 0


def test_a_stall_is_seen_while_it_lasts(server: RunningServer, run: object) -> None:
    """The engine stops for ten seconds with four streams open: every scrape meanwhile says so, with the right age."""
    folder = server.log.parent
    rng = np.random.default_rng(3)
    client = make_client(server)
    streams = [
        ScheduledRequest(
            request_id=f"s{i}", offset_ns=0, prompt=random_prompt(8, rng), max_tokens=400, ignore_eos=True,
            slo_class="strict",
        )
        for i in range(4)
    ]  # fmt: skip
    threads = [threading.Thread(target=client.send, args=(stream,)) for stream in streams]
    (folder / "stall").touch()
    for thread in threads:
        thread.start()
    while (folder / "stall").exists():
        time.sleep(0.01)
    began = time.monotonic()
    seen = []
    while time.monotonic() - began < STALL_S - 1:
        time.sleep(0.5)
        before = time.monotonic()
        metrics = Metrics(server.url)
        after = time.monotonic()
        seen.append((before - began, after - began, metrics))
    for thread in threads:
        thread.join()
    ages = []
    for before, after, metrics in seen:
        if before < 1:  # the gauges are refreshed four times a second
            continue
        assert metrics.total("sarathi_requests_overdue", slo_class="strict") == 4
        assert metrics.total("sarathi_requests_overdue", slo_class="standard") == 0
        ages.append((before, after, metrics.total("sarathi_oldest_overdue_seconds", slo_class="strict")))
    assert len(ages) >= 3
    for (before, _, age), (_, later, next_age) in pairwise(ages):
        assert before - 1 < age < later + 1
        assert next_age - age <= later - before + 0.3
        assert next_age > age
    time.sleep(0.6)
    metrics = Metrics(server.url)
    assert metrics.total("sarathi_requests_overdue") == 0
    assert STALL_S - 1 < metrics.total("sarathi_longest_stall_last_minute_seconds") < STALL_S + 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("gold", ["Unknown slo_class 'gold'", "interactive", "standard", "batch"]),
        (5, ["must be a string", "5"]),
    ],
)
def test_a_bad_slo_class_is_a_400_and_costs_nothing(
    server: RunningServer, value: object, words: list[str]
) -> None:
    body = {"model": MODEL, "prompt": [5, 6, 7], "max_tokens": 2, "vllm_xargs": {"slo_class": value}}
    with requests.Session() as session:
        session.trust_env = False
        for stream in (False, True):
            body["stream"] = stream
            answer = session.post(f"{server.url}/v1/completions", json=body, timeout=60)
            assert answer.status_code == 400
            message = answer.json()["error"]["message"]
            assert all(word in message for word in words), message
        body["vllm_xargs"] = {"slo_class": "batch"}
        assert session.post(f"{server.url}/v1/completions", json=body, timeout=60).status_code == 200


def test_build_info_says_what_runs(server: RunningServer) -> None:
    metrics = Metrics(server.url)
    assert metrics.total("sarathi_build_info", policy="sarathi", slo="deadline", model_name=MODEL) == 1
    assert metrics.total("sarathi_policy_enabled") == 1
