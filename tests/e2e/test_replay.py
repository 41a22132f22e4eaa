"""A real server's recording, played again: every scheduling decision is the same."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import requests

from sarathi_plugin.config import load_curve
from sarathi_plugin.core import SloClass
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.dispatch import run_open_loop
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.simulate.replay import replay
from sarathi_plugin.telemetry.recording import read_recording
from sarathi_plugin.workload.synthetic import workload_of
from sarathi_plugin.workload.trace import Segment, Trace, TraceRequest
from tests.e2e.support import MODEL, tiny_server

if TYPE_CHECKING:
    from pathlib import Path

    from sarathi_plugin.load.server import RunningServer

pytestmark = [pytest.mark.vllm, pytest.mark.server]

SLOW = pytest.mark.slow
# Blocks of 128 tokens: the prompts of the eight that start at once fill them, so answers that grow push others out.
ARGS = (
    "--enable-prefix-caching", "--num-gpu-blocks-override", "24", "--max-model-len", "2048", "--max-num-seqs", "8",
    "--max-num-batched-tokens", "512",
)  # fmt: skip


def traffic(count: int = 16) -> Trace:
    rng = np.random.default_rng(5)
    found = []
    for i in range(count):
        own = int(rng.integers(20, 500))
        segments = (Segment(1, 384), Segment(100 + i, own)) if i % 2 else (Segment(100 + i, own),)
        found.append(
            TraceRequest(
                request_id=f"r{i}",
                offset_ns=i * 10_000_000,
                prompt_tokens=sum(part.tokens for part in segments),
                output_tokens=int(rng.integers(300, 500)),
                segments=segments,
            )
        )
    return Trace("replay", tuple(found))


def hang_up(server: RunningServer) -> None:
    """A client that leaves early in an answer as long as can be: a starved server notices late."""
    body = {"model": MODEL, "prompt": [20] * 40, "max_tokens": 2000, "ignore_eos": True, "stream": True}
    with requests.Session() as session, contextlib.suppress(requests.exceptions.RequestException):
        session.trust_env = False
        with session.post(f"{server.url}/v1/completions", json=body, stream=True, timeout=60) as answer:
            for i, _ in enumerate(answer.iter_lines()):
                if i > 20:
                    return


@pytest.mark.parametrize(
    "scheduler", ["sarathi", pytest.param("vllm", marks=SLOW), pytest.param("sarathi-static", marks=SLOW)]
)
def test_a_server_decides_again_as_it_did(tmp_path: Path, scheduler: str) -> None:
    path = tmp_path / "run.jsonl.gz"
    budget = ARGS if scheduler != "sarathi-static" else (*ARGS, "--sarathi-token-budget", "256")
    targets = Targets(SloClass("standard", 50_000_000, 10**9), load_curve("a100-llama-3-8b"))
    with tiny_server(tmp_path, *budget, "--scheduler", scheduler, "--sarathi-record", str(path)) as server:
        client = StreamingClient(Endpoint(server.url, MODEL), targets)
        hang_up(server)
        result = run_open_loop(workload_of(traffic(), 0), client.send)
        time.sleep(1.5)  # the recorder writes twice a second
    assert {t.status for t in result.timelines} == {"finished"}
    recording = read_recording(path)
    report = replay(recording)
    assert report.different == 0, report.differences
    assert report.steps >= 400
    assert report.preemptions > 0
    assert report.cached_tokens >= 384
    assert "aborted" in {t.status for t in recording.timelines}
