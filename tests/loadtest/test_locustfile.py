"""The same load test under Locust's own command, as its users start it."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from sarathi_plugin.load.server import free_port
from sarathi_plugin.loadtest.plan import Amount, schedule
from sarathi_plugin.telemetry.parquet import read_timelines
from sarathi_plugin.workload.spec import load_workload
from sarathi_plugin.workload.synthetic import workload_of
from tests.loadtest.scripted import digest
from tests.loadtest.test_command import lag_only


def test_headless_run_sends_the_same_schedule(scripted, locust, workload_file, tmp_path):
    server = scripted()
    process = locust(
        "--headless", "--host", server.url, "--workload", workload_file, "--rate", "8", "--run-time", "3s", "--seed",
        "4", "--tbt-ms", "1000", "--out", str(tmp_path / "out"), "--fail-if", "errors>0,requests<5",
    )  # fmt: skip
    output, _ = process.communicate(timeout=120)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert process.returncode == 0 or lag_only(summary), output
    assert process.returncode == summary["exit_code"]
    trace = schedule(load_workload(workload_file), Amount(rate=8, duration_s=3), 4)
    assert set(server.log()) == {digest(list(r.prompt)) for r in workload_of(trace, 4).requests}
    timelines = read_timelines(tmp_path / "out" / "timelines.parquet")
    assert [t.request_id for t in timelines] == [r.request_id for r in trace.requests]
    assert "/v1/completions standard" in output  # Locust's own statistics know of the requests


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--host", "http://127.0.0.1:1"), "No server answers at http://127.0.0.1:1"),
        ((), "Give the server's address with --host"),
        (("--host", "http://127.0.0.1:1", "--rate", "many"), "--rate takes a number, not 'many'"),
        (
            ("--host", "http://127.0.0.1:1", "--seed", "1.5"),
            "--seed takes a whole number from 0 on, not '1.5'",
        ),
        (("--host", "http://127.0.0.1:1", "--processes", "2"), "No server answers at"),
        # said before any worker has come
        (("--host", "http://127.0.0.1:1", "--master", "--master-bind-port", "PORT"), "No server answers at"),
    ],
)
def test_bad_usage(locust, args, words):
    process = locust("--headless", *(str(free_port()) if arg == "PORT" else arg for arg in args))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert words in output
    assert "Traceback" not in output


def test_figures_are_said_though_they_cannot_be_written(scripted, locust, workload_file, tmp_path):
    (tmp_path / "out" / "summary.json").mkdir(parents=True)
    process = locust(
        "--headless", "--host", scripted().url, "--workload", workload_file, "--rate", "20", "--duration", "1s",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "fluid" in output
    assert f"Cannot write {tmp_path / 'out'}: Is a directory; choose another --out." in output
    assert "report.html" not in output


@pytest.mark.parametrize("role", [(), ("--master", "--master-bind-port", "PORT")])
def test_a_mistake_of_ours_ends_the_run(locust, role):
    first = """
import sarathi_plugin.loadtest.events as events
def prepare(wanted):
    raise LookupError("a mistake")
events.prepare = prepare
"""
    process = locust(
        "--headless",
        "--host",
        "http://x",
        *(str(free_port()) if arg == "PORT" else arg for arg in role),
        first=first,
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "The run cannot begin: LookupError: a mistake" in output


def test_a_port_in_use_is_a_sentence(scripted, locust):
    server = scripted()
    process = locust("--host", server.url, "--web-port", server.url.rpartition(":")[2])
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "Cannot serve the web UI on port" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_ctrl_c_with_processes_keeps_what_was_measured(scripted, locust, workload_file, tmp_path):
    server = scripted()
    process = locust(
        "--headless", "--host", server.url, "--workload", workload_file, "--rate", "10", "--duration", "300s",
        "--processes", "2", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while len(server.log()) < 20 and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes of the group
    output, _ = process.communicate(timeout=90)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert process.returncode == 130, output
    assert summary["figures"]["requests"] >= 15
    assert summary["figures"]["requests"] + summary["run"]["unsent"] == summary["run"]["scheduled"]
    assert "lost" not in summary["faults"]


@pytest.mark.slow
def test_stop_in_the_web_ui_ends_the_run(scripted, locust, workload_file, tmp_path):
    import requests

    server = scripted()
    port = free_port()
    process = locust(
        "--autostart", "--web-port", str(port), "--host", server.url, "--workload", workload_file, "--rate", "10",
        "--duration", "300s", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(server.log()) < 10 and time.monotonic() < deadline:
        time.sleep(0.2)
    url = f"http://127.0.0.1:{port}"
    with requests.Session() as session:
        session.trust_env = False
        page = session.get(url, timeout=10).text
        live = session.get(f"{url}/sarathi/live", timeout=10).json()
        assert session.post(f"{url}/stop", timeout=60).ok
        after = session.get(f"{url}/sarathi/live", timeout=10).json()
    assert "/sarathi/tab.js" in page
    assert '"extended_tabs": [{"key": "fluidity", "title": "Fluidity"}]' in page
    assert live["state"]["running"]
    assert not after["state"]["running"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["verdict"] == "stopped"
    assert summary["figures"]["requests"] >= 8
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
