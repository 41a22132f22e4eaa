"""Several machines: master and workers know each other by address alone, and have clocks of their own."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.load.server import free_port
from sarathi_plugin.loadtest.plan import Amount, schedule
from sarathi_plugin.telemetry.parquet import read_timelines
from sarathi_plugin.workload.spec import load_workload
from sarathi_plugin.workload.synthetic import workload_of
from tests.loadtest.scripted import digest
from tests.loadtest.test_command import wait_for

OTHER_CLOCKS = """
mono, wall = time.monotonic_ns, time.time_ns
time.monotonic_ns = lambda: mono() + 90_000_000_000_000
time.time_ns = lambda: wall() - 3_600_000_000_000
"""
"""A machine that was started a day earlier, and whose wall clock is an hour behind."""


@pytest.fixture
def machines(locust, workload_file, tmp_path):
    """Start two workers and a master; returns the master and the workers."""

    def start(url, *args, one=None, other=None, **env):
        port = str(free_port())
        join = ("--worker", "--master-host", "127.0.0.1", "--master-port", port)
        workers = [locust(*join, **(one or {})), locust(*join, **(other or {}))]
        master = locust(
            "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2",
            "--headless", "--host", url, "--workload", workload_file, "--rate", "10", "--tbt-ms", "1000",
            "--out", str(tmp_path / "out"), *args, **env,
        )  # fmt: skip
        return master, workers, join

    return start


def results(tmp_path):
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    return summary, read_timelines(tmp_path / "out" / "timelines.parquet")


def wait_for_requests(server, number):
    deadline = time.monotonic() + 90
    while len(server.log()) < number and time.monotonic() < deadline:
        time.sleep(0.1)


def kill(worker):
    os.killpg(worker.pid, signal.SIGKILL)


def test_clocks_of_other_machines_are_put_on_the_masters(scripted, machines, workload_file, tmp_path):
    server = scripted()
    master, workers, _ = machines(server.url, "--duration", "4s", other={"first": OTHER_CLOCKS})
    output, _ = master.communicate(timeout=120)
    assert master.returncode in (0, 3), output
    summary, timelines = results(tmp_path)
    errors = [worker["clock_error_ns"] for worker in summary["run"]["workers"]]
    assert len(errors) == 2
    error = max(errors)
    assert error < NS_PER_S
    trace = schedule(load_workload(workload_file), Amount(rate=10, duration_s=4), 0)
    prompts = [digest(list(r.prompt)) for r in workload_of(trace, 0).requests]
    log = server.log()
    assert set(log) == set(prompts)
    assert [t.request_id for t in timelines] == [r.request_id for r in trace.requests]
    start = timelines[0].arrival_ns - trace.requests[0].offset_ns
    for timeline, request, prompt in zip(timelines, trace.requests, prompts, strict=True):
        served = log[prompt]
        assert timeline.arrival_ns == start + request.offset_ns
        assert timeline.sent_ns <= served["received_ns"] + error
        assert len(timeline.token_ns) == len(served["sent_ns"])
        assert all(
            got >= sent - error for got, sent in zip(timeline.token_ns, served["sent_ns"], strict=True)
        )
    for worker in workers:
        assert worker.wait(timeout=30) == 0


def test_requests_of_a_worker_that_dies_are_lost(scripted, machines, tmp_path):
    server = scripted()
    master, workers, _ = machines(server.url, "--duration", "10s")
    wait_for_requests(server, 10)
    kill(workers[1])
    output, _ = master.communicate(timeout=120)
    summary, timelines = results(tmp_path)
    assert master.returncode == 3, output
    assert "1 of the workers disappeared during the run." in summary["invalid"]
    assert len(timelines) == summary["run"]["scheduled"]
    assert summary["faults"].keys() == {"lost"}
    assert summary["figures"]["errors"] == summary["faults"]["lost"]
    halves = {i % 2 for i, timeline in enumerate(timelines) if timeline.status != "finished"}
    assert len(halves) == 1  # one worker's alone
    assert 0 < summary["faults"]["lost"] <= len(timelines) / 2 + 1


@pytest.mark.slow
def test_a_run_without_any_worker_left_is_invalid(scripted, machines, tmp_path):
    server = scripted()
    master, workers, _ = machines(server.url, "--duration", "60s")
    wait_for_requests(server, 10)
    for worker in workers:
        kill(worker)
    output, _ = master.communicate(timeout=120)
    summary, timelines = results(tmp_path)
    assert master.returncode == 3, output
    assert "2 of the workers disappeared during the run." in summary["invalid"]
    assert len(timelines) == summary["run"]["scheduled"]


@pytest.mark.slow
def test_a_late_worker_and_ctrl_c_on_the_master(scripted, machines, locust, tmp_path):
    """A worker dies, another comes too late, and then only the master is stopped."""
    server = scripted()
    master, workers, join = machines(server.url, "--duration", "300s")
    wait_for_requests(server, 10)
    kill(workers[1])
    late = locust(*join)
    wait_for(tmp_path, master, "came too late for this run: it takes part in the next one.")
    master.send_signal(signal.SIGINT)
    output, _ = master.communicate(timeout=90)
    summary, timelines = results(tmp_path)
    assert master.returncode == 130, output
    run, figures = summary["run"], summary["figures"]
    assert figures["requests"] == len(timelines)
    assert figures["requests"] + run["unsent"] == run["scheduled"]
    assert run["unsent"] > 1000
    assert summary["faults"]["lost"] > 0
    assert max(t.arrival_ns for t in timelines) <= max(t.end_ns for t in timelines)
    for worker in (workers[0], late):
        worker.communicate(timeout=30)


@pytest.mark.slow
def test_ctrl_c_while_workers_are_waited_for(scripted, machines, tmp_path):
    master, workers, _ = machines(scripted().url, "--duration", "4s", "--expect-workers", "3")
    wait_for(tmp_path, master, "Waiting for workers to be ready, 2 of 3 connected")
    master.send_signal(signal.SIGINT)
    output, _ = master.communicate(timeout=60)
    assert master.returncode == 130, output
    assert "Traceback" not in output
    for worker in workers:
        assert worker.wait(timeout=30) == 0


PLAIN = """
from locust import User, task

class ScheduleUser(User):
    @task
    def wait(self):
        import time
        time.sleep(1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("version", "has sarathi-plugin 0.0.1, the master "),
        ("key", "/v1/models answers 401: check address and key."),
        ("file", "does not answer: start it with the same locustfile"),
    ],
)
def test_a_worker_that_cannot_take_part_is_named(scripted, machines, tmp_path, what, words):
    server = scripted("--key", "sesame")
    (tmp_path / "plain.py").write_text(PLAIN)
    key = {"OPENAI_API_KEY": "sesame"}
    other = {
        "version": {**key, "first": "import sarathi_plugin\nsarathi_plugin.__version__ = '0.0.1'"},
        "key": {"OPENAI_API_KEY": ""},
        "file": {**key, "locustfile": tmp_path / "plain.py"},
    }[what]
    master, _, _ = machines(server.url, "--duration", "4s", one=key, other=other, **key)
    output, _ = master.communicate(timeout=120)
    assert master.returncode == 2, output
    assert words in output
    assert f"Worker {os.uname().nodename}" in output
    assert "Traceback" not in output
    assert server.log() == {}
