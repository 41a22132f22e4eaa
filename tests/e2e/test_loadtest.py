"""A load test of a real server: what the client measures is what the server books, and where it is not, how much."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from sarathi_plugin.loadtest.figures import figures
from sarathi_plugin.telemetry.parquet import read_timelines
from sarathi_plugin.telemetry.recording import read_recording
from tests.e2e.support import tiny_server

pytestmark = [pytest.mark.vllm, pytest.mark.server, pytest.mark.slow]

FAR_S = 1.0
"""More than any machine that can serve the model needs on the way; less than a request that is booked late."""

CORES = sorted(os.sched_getaffinity(0))
PIN = ["taskset", "--cpu-list", str(CORES[-1])] if shutil.which("taskset") and len(CORES) > 1 else []


def run(url, out, *args):
    argv = [*PIN, sys.executable, "-m", "sarathi_plugin.cli", "loadtest", url, "--out", str(out), *args]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, check=False)
    assert (out / "summary.json").is_file(), done.stdout + done.stderr
    return json.loads((out / "summary.json").read_text()), read_timelines(out / "timelines.parquet")


def test_client_and_server_agree(tmp_path):
    recording = tmp_path / "recording.jsonl.gz"
    env = {"VLLM_CPU_OMP_THREADS_BIND": str(CORES[0])} if PIN else {}
    with tiny_server(
        tmp_path, "--scheduler", "sarathi", "--sarathi-record", str(recording), env=env
    ) as server:
        run(
            server.url,
            tmp_path / "warm-up",
            "--rate",
            "1",
            "--requests",
            "6",
            "--scale",
            "0.1",
            "--seed",
            "9",
        )
        summary, client = run(
            server.url, tmp_path / "out", "--rate", "1", "--duration", "40s", "--scale", "0.1", "--seed", "1"
        )
        chat, _ = run(
            server.url, tmp_path / "chat", "--rate", "1", "--requests", "5", "--scale", "0.05", "--chat"
        )
        closed, _ = run(
            server.url, tmp_path / "closed", "--workload", "chat-sessions", "--users", "2", "--think", "0.5",
            "--duration", "10s", "--scale", "0.05",
        )  # fmt: skip
    assert summary["figures"]["errors"] == 0
    assert not [reason for reason in summary["invalid"] if "length" in reason]
    ids = {t.request_id for t in client}
    begin, end = min(t.arrival_ns for t in client), max(t.end_ns for t in client)
    booked = [t for t in read_recording(recording).timelines if begin <= t.arrival_ns <= end]
    assert len(booked) == len(ids)
    assert all(sum(f"-{name}-" in f"{t.request_id}-" for t in booked) == 1 for name in ids)
    ours, theirs = figures(client), figures(booked)
    assert ours["fluidity_index"] == pytest.approx(theirs["fluidity_index"], abs=0.02)
    # The client's way to the engine and back is in its figures alone. How long it is: make bench-loadtest.
    arrived = {t.request_id: t for t in client}
    for there in booked:
        here = next(t for name, t in arrived.items() if f"-{name}-" in f"{there.request_id}-")
        assert here.arrival_ns <= there.arrival_ns
        assert there.token_ns[0] <= here.token_ns[0]
    assert ours["ttft_p50_s"] < theirs["ttft_p50_s"] + FAR_S
    assert chat["run"]["prompt_lengths"] == "words counted by /tokenize, verified by usage"
    assert not [reason for reason in chat["invalid"] if "length" in reason]
    assert closed["figures"]["errors"] == 0
    assert not [reason for reason in closed["invalid"] if "length" in reason]
