"""Whether what is measured is what happened: a server that knows when it sent each token is the judge."""

from __future__ import annotations

import contextlib
import json
import os
import time
from itertools import pairwise

import numpy as np
import pytest
import requests

from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.loadtest.plan import Amount, schedule
from sarathi_plugin.workload.model import ScheduledRequest
from sarathi_plugin.workload.spec import load_workload
from sarathi_plugin.workload.synthetic import workload_of
from tests.loadtest.scripted import digest
from tests.loadtest.test_command import lag_only
from tests.unit.load.conftest import TARGETS

INTERVAL_NS = 50 * NS_PER_MS
MOST_MS = 25
"""Half an interval."""


def gaps_of(times):
    return [b - a for a, b in pairwise(times)]


def errors_of(scripted, loadtest, workload, name):
    """P99 of how far gaps are from 50 ms, milliseconds, as the server sent them and as the client measured them."""
    server = scripted("--interval-ms", "50", "--first-ms", "300")
    with on_cores(server.pid):
        run = loadtest(server.url, "--workload", workload, "--tbt-ms", "1000", name=name)
    assert run.code == 0 or lag_only(run.summary), run.output
    prompts = {
        r.request_id: digest(list(r.prompt))
        for r in workload_of(schedule(load_workload(workload), Amount(), 0), 0).requests
    }
    log = server.log()
    sending, measuring = [], []
    for timeline in run.timelines:
        sent_ns = log[prompts[timeline.request_id]]["sent_ns"]
        assert len(timeline.token_ns) == len(sent_ns) == 120
        assert all(got >= sent for got, sent in zip(timeline.token_ns, sent_ns, strict=True))
        sending += [abs(gap - INTERVAL_NS) for gap in gaps_of(sent_ns)]
        measuring += [abs(gap - INTERVAL_NS) for gap in timeline.gaps_ns]
    return tuple(float(np.percentile(errors, 99)) / NS_PER_MS for errors in (sending, measuring))


@contextlib.contextmanager
def on_cores(server_pid):
    """The server on the first core, what is started meanwhile on the last one."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(server_pid, {min(cores)})
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.slow
def test_token_gaps_are_right_with_64_streams(scripted, loadtest, tmp_path):
    """64 streams of 20 tokens a second: no token is booked with its neighbour, 50 ms off, nor near it.

    How exact the client is on a machine that does nothing else, ``make bench-loadtest`` says. Three attempts: what
    else runs can only add to the difference.
    """
    rows = [
        {"request_id": f"s-{i}", "offset_ns": i * 5 * NS_PER_MS, "prompt_tokens": 20, "output_tokens": 120}
        for i in range(64)
    ]
    (tmp_path / "streams.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "streams.yaml").write_text("trace: streams.jsonl\n")
    seen = []
    for attempt in range(3):
        seen.append(errors_of(scripted, loadtest, str(tmp_path / "streams.yaml"), f"out{attempt}"))
        server_ms, client_ms = seen[-1]
        if client_ms <= server_ms + MOST_MS:
            break
    assert client_ms <= server_ms + MOST_MS, seen


@pytest.mark.slow
def test_the_same_seed_gives_the_same_schedule_over_1_2_and_4_workers(scripted, loadtest, workload_file):
    seen = []
    for processes in ("1", "2", "4"):
        server = scripted()
        run = loadtest(
            server.url, "--workload", workload_file, "--rate", "12", "--requests", "41", "--seed", "9", "--tbt-ms",
            "1000", "--processes", processes, name=f"out{processes}",
        )  # fmt: skip
        assert run.code == 0 or lag_only(run.summary), run.output
        timelines = run.timelines
        offsets = np.array([t.arrival_ns for t in timelines]) - timelines[0].arrival_ns
        seen.append((set(server.log()), [t.request_id for t in timelines], offsets))
    (prompts, ids, offsets), *others = seen
    for other_prompts, other_ids, other_offsets in others:
        assert other_prompts == prompts
        assert other_ids == ids
        assert abs(other_offsets - offsets).max() < NS_PER_MS


def test_a_closed_loop_waits_for_its_answers(scripted, loadtest):
    server = scripted("--interval-ms", "5")
    run = loadtest(
        server.url, "--workload", "chat-sessions", "--users", "4", "--think", "0.3", "--duration", "4s", "--scale",
        "0.03", "--tbt-ms", "1000", "--seed", "3", "--processes", "2",
    )  # fmt: skip
    assert run.code == 0 or lag_only(run.summary), run.output
    assert run.summary["run"]["loop"] == "closed, 4 users, 0.3 s to think"
    log = sorted(server.log().values(), key=lambda entry: entry["received_ns"])
    continued = 0
    for place, later in enumerate(log):
        for earlier in log[:place]:
            said = [*earlier["prompt"], *(1000 + i for i in range(len(earlier["sent_ns"])))]
            if later["prompt"][: len(said)] == said:
                continued += 1
                assert later["received_ns"] > earlier["sent_ns"][-1]
    assert continued >= 3
    users = {}
    for timeline in run.timelines:
        users.setdefault(timeline.request_id.rsplit("-", 1)[0], []).append(timeline)
    assert set(users) == {f"user-{i}" for i in range(4)}
    for turns in users.values():
        assert all(later.arrival_ns >= earlier.end_ns for earlier, later in pairwise(turns))


@pytest.mark.slow
def test_chats_have_exactly_the_length_asked_for(scripted, loadtest, workload_file):
    server = scripted()
    run = loadtest(
        server.url,
        "--workload",
        workload_file,
        "--rate",
        "10",
        "--requests",
        "12",
        "--chat",
        "--tbt-ms",
        "1000",
    )
    assert run.code == 0 or lag_only(run.summary), run.output
    assert run.summary["run"]["prompt_lengths"] == "words counted by /tokenize, verified by usage"
    trace = schedule(load_workload(workload_file), Amount(rate=10, requests=12), 0)
    shortest = 8  # a word and the template
    assert [t.prompt_tokens for t in run.timelines] == [
        max(shortest, r.prompt_tokens) for r in trace.requests
    ]


def test_connections_are_used_again_but_not_old_ones(scripted):
    server = scripted("--interval-ms", "1", "--first-ms", "1")
    client = StreamingClient(Endpoint(server.url, "scripted"), TARGETS)

    def send(name):
        request = ScheduledRequest(
            request_id=name, offset_ns=0, prompt=(1, 2, len(name)), prompt_tokens=3, max_tokens=4
        )
        outcome = client.send(request)
        assert outcome.timeline.status == "finished"
        assert outcome.timeline.sent_ns <= outcome.timeline.first_byte_ns <= outcome.timeline.token_ns[0]

    def connections():
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{server.url}/connections", timeout=10).json()

    before = connections()
    for i in range(4):
        send("x" * i)
    assert connections() - before == 2  # one for all four, and this one
    time.sleep(2.2)
    send("later")
    assert connections() - before == 4


def test_a_first_byte_is_not_a_token(scripted):
    server = scripted("--first-ms", "400")
    client = StreamingClient(Endpoint(server.url, "scripted"), TARGETS)
    request = ScheduledRequest(request_id="a", offset_ns=0, prompt=(1, 2), prompt_tokens=2, max_tokens=2)
    timeline = client.send(request).timeline
    assert timeline.token_ns[0] - timeline.first_byte_ns > 0.3 * NS_PER_S
