import contextlib
import json
import math
import re
import signal
import time

import numpy as np
import pytest
import requests

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.load.server import free_port
from sarathi_plugin.loadtest.plan import Amount, schedule
from sarathi_plugin.workload.spec import load_workload
from sarathi_plugin.workload.synthetic import workload_of
from tests.loadtest.scripted import digest

FAULTS = {
    "429": "http 429",
    "503": "http 503",
    "hang": "read-timeout",
    "drop": "reset",
    "reset": "reset",
    "half-open": "read-timeout",
    "malformed": "malformed",
    "error": "server",
    "drip": "timeout",
    "truncated": "truncated",
}


def wait_for(out, process, text):
    """Read the output of a command up to a line with this text."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    pytest.fail("".join(lines))


def lag_only(summary):
    """Whether a run is refused for nothing but a busy machine."""
    return all(reason.startswith("The client sent late") for reason in summary["invalid"])


def test_every_fault_is_counted_under_its_name_and_nothing_hangs(scripted, loadtest, workload_file):
    server = scripted("--script", ",".join(["ok", *FAULTS]))
    run = loadtest(
        server.url, "--workload", workload_file, "--rate", "20", "--requests", "44", "--silence", "1",
        "--timeout", "3", "--tbt-ms", "1000", "--fail-if", "error_share>0.5",
    )  # fmt: skip
    summary = run.summary
    assert summary["faults"] == {
        "reset": 8,
        "read-timeout": 8,
        "http 429": 4,
        "http 503": 4,
        "malformed": 4,
        "server": 4,
        "timeout": 4,
        "truncated": 4,
    }
    assert (summary["figures"]["requests"], summary["figures"]["errors"]) == (44, 40)
    assert summary["figures"]["fluidity_share"] <= 4 / 44
    assert len(run.timelines) == 44
    assert run.code == summary["exit_code"]
    assert "the first of them: " in run.output
    assert summary["crossed"] == ["error_share > 0.5 (it is 0.909091)"]
    assert run.code == (3 if summary["invalid"] else 1)
    assert lag_only(summary)
    report = (run.out / "report.html").read_text()
    assert "read-timeout" in report
    assert "Crossed: error_share &gt; 0.5" in report


def test_two_workers_send_the_schedule_of_one(scripted, loadtest, workload_file):
    server = scripted()
    run = loadtest(
        server.url, "--workload", workload_file, "--rate", "10", "--requests", "31", "--seed", "5", "--processes", "2",
        "--tbt-ms", "1000",
    )  # fmt: skip
    trace = schedule(load_workload(workload_file), Amount(rate=10, requests=31), 5)
    prompts = {digest(list(r.prompt)): r for r in workload_of(trace, 5).requests}
    assert set(server.log()) == set(prompts)
    timelines = run.timelines
    assert [t.request_id for t in timelines] == [r.request_id for r in trace.requests]
    start = timelines[0].arrival_ns - trace.requests[0].offset_ns
    for timeline, request in zip(timelines, trace.requests, strict=True):
        assert abs(timeline.arrival_ns - start - request.offset_ns) < 1_000_000
        assert len(timeline.token_ns) == request.output_tokens
    summary = run.summary
    assert len(summary["run"]["workers"]) == 2
    assert run.code == 0 or (run.code == 3 and lag_only(summary))


def test_ctrl_c_writes_what_was_measured(scripted, command, workload_file):
    server = scripted("--script", "ok,hang")
    process, out = command(server.url, "--workload", workload_file, "--rate", "10", "--duration", "300s")
    wait_for(out, process, "1 process")
    deadline = time.monotonic() + 60
    while len(server.log()) < 12 and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "stopped" in output
    summary = json.loads((out / "summary.json").read_text())
    figures, run = summary["figures"], summary["run"]
    assert run["unsent"] > 2000
    assert figures["requests"] + run["unsent"] == run["scheduled"]
    assert figures["requests"] >= 12
    assert summary["faults"]["stopped"] >= 5
    assert figures["errors"] < figures["requests"]


def test_the_web_ui_shows_the_run(scripted, command, workload_file):
    server = scripted()
    port = free_port()
    process, out = command(
        server.url, "--workload", workload_file, "--rate", "10", "--duration", "6s", "--web-port", str(port)
    )
    wait_for(out, process, "?tab=fluidity")
    page, live = "", {}
    with requests.Session() as session:
        session.trust_env = False
        while process.poll() is None and not live.get("rows"):
            with contextlib.suppress(requests.exceptions.ConnectionError):
                page = session.get(f"http://127.0.0.1:{port}", timeout=10).text
                live = session.get(f"http://127.0.0.1:{port}/sarathi/live", timeout=10).json()
            time.sleep(0.2)
    assert "/sarathi/tab.js" in page
    assert live["rows"][0][0] == "standard"
    process.communicate(timeout=60)


def test_a_starved_client_refuses_its_run(scripted, command, workload_file):
    server = scripted()
    process, out = command(
        server.url, "--workload", workload_file, "--rate", "20", "--duration", "6s", "--tbt-ms", "1000"
    )
    wait_for(out, process, "1 process")
    deadline = time.monotonic() + 60
    while not server.log() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 3, output
    assert re.search(r"INVALID: The client sent late: \d+\.\d ms at P99, more than 50 ms", output)


def test_prompts_of_another_length_refuse_a_run(scripted, loadtest, workload_file):
    server = scripted("--script", "ok,wrong-prompt")
    run = loadtest(server.url, "--workload", workload_file, "--rate", "20", "--requests", "10")
    assert run.code == 3
    assert "5 of 10 prompts did not have the length asked for." in run.summary["invalid"]


def test_requests_that_went_out_twice_are_counted(scripted, loadtest, workload_file):
    server = scripted("--script", "ok,drop,ok", "--interval-ms", "1", "--first-ms", "1")
    run = loadtest(server.url, "--workload", workload_file, "--rate", "4", "--requests", "8")
    twice = run.summary["run"]["resent"]
    assert twice >= 1
    assert twice == run.summary["run"]["workers"][0]["resent"]
    assert len(run.timelines) == 8
    assert f"; {twice} sent twice; " in run.output
    assert f"0 were not sent, {twice} were sent a second time" in (run.out / "report.html").read_text()


def test_figures_are_said_though_they_cannot_be_written(scripted, loadtest, workload_file, tmp_path):
    (tmp_path / "out" / "summary.json").mkdir(parents=True)
    run = loadtest(scripted().url, "--workload", workload_file, "--rate", "20", "--requests", "5")
    assert run.code == 2, run.output
    assert "fluid" in run.output
    assert f"Cannot write {run.out}: Is a directory; choose another --out." in run.output
    assert "report.html" not in run.output
    assert "Traceback" not in run.output


@pytest.mark.slow
def test_a_slow_server_does_not_slow_the_arrivals(scripted, loadtest, workload_file):
    server = scripted("--first-ms", "4000")
    run = loadtest(
        server.url,
        "--workload",
        workload_file,
        "--rate",
        "10",
        "--duration",
        "10s",
        "--tbt-ms",
        "1000",
        "--seed",
        "2",
    )
    timelines = run.timelines
    received = sorted(entry["received_ns"] for entry in server.log().values())
    assert len(received) == len(timelines)
    late = [got - t.arrival_ns for got, t in zip(received, timelines, strict=True)]
    # with coordinated omission, most would have waited for an answer of four seconds
    assert sorted(late)[len(late) // 2] < NS_PER_S // 20
    assert run.summary["figures"]["ttft_p50_s"] > 4
    gaps = np.sort(np.diff(received)) / NS_PER_S
    theory = 1 - np.exp(-10 * gaps)
    steps = np.arange(len(gaps) + 1) / len(gaps)
    distance = max(np.abs(steps[1:] - theory).max(), np.abs(theory - steps[:-1]).max())
    assert distance < 1.95 / math.sqrt(len(gaps))  # Kolmogorov-Smirnov, one in a thousand


@pytest.mark.slow
def test_a_foreign_server_is_a_black_box(scripted, loadtest, workload_file):
    run = loadtest(
        scripted("--foreign").url, "--workload", workload_file, "--rate", "10", "--requests", "10", "--chat",
        "--tbt-ms", "1000",
    )  # fmt: skip
    assert run.code == 0 or lag_only(run.summary)
    assert run.summary["run"]["prompt_lengths"] == "words, lengths from usage"
    assert run.summary["figures"]["errors"] == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("http://127.0.0.1:1", "--rate", "1"), "No server answers at http://127.0.0.1:1"),
        (("ftp://x", "--rate", "1"), "Give the server's address as http://HOST:PORT"),
        (("http://127.0.0.1:1", "--think", "2"), "--think is for the people of --users."),
        (("http://127.0.0.1:1", "--rate", "1", "--fail-if", "nonsense>1"), "--fail-if: no figure 'nonsense'"),
    ],
)
def test_bad_usage(loadtest, args, words):
    run = loadtest(*args)
    assert run.code == 2
    assert words in run.output
    assert "Traceback" not in run.output
