"""Async scheduling in vLLM's own engine: two steps in flight, as on GPUs by default.

vLLM switches it off on CPUs, where nothing runs beside the host. Here a plugin switches it on again, and CUDA's streams
and events, which order copies that a CPU has done already, do nothing. Scheduler, engine loop, worker, model and
server are vLLM's.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
import requests

from sarathi_plugin.simulate.replay import replay
from sarathi_plugin.telemetry.recording import read_recording
from tests.e2e.support import MODEL, install_plugin, tiny_server
from tests.e2e.test_greedy import NEAR_TIE
from tests.e2e.test_replay import ARGS, hang_up, traffic

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.vllm, pytest.mark.server, pytest.mark.slow]

SWITCH = """
import contextlib
import torch

class Nothing:
    def __init__(self, *args, **kwargs):
        self.device = torch.device("cpu")
    def record(self, *args): pass
    def synchronize(self): pass
    def wait_stream(self, stream): pass

def register():
    from vllm.platforms.cpu import CpuPlatform
    torch.cuda.Event = torch.cuda.Stream = torch.Event = Nothing
    torch.cuda.current_stream = lambda *args: Nothing()
    torch.cuda.stream = lambda stream: contextlib.nullcontext()
    check = CpuPlatform.check_and_update_config
    def switched_on(cls, config):
        check(config)
        config.scheduler_config.async_scheduling = True
    CpuPlatform.check_and_update_config = classmethod(switched_on)
"""


def answers(folder: Path, *args: str, env: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """What a server answers to the prompts of ``traffic``, all sent at once: tokens and their log-probabilities."""

    def ask(number: int, prompt: int, tokens: int) -> dict[str, Any]:
        body = {
            "model": MODEL, "prompt": [20 + (7 * number + i) % 200 for i in range(prompt)], "max_tokens": tokens,
            "temperature": 0, "ignore_eos": True, "logprobs": 2,
        }  # fmt: skip
        with requests.Session() as session:
            session.trust_env = False
            found: dict[str, Any] = session.post(
                f"{server.url}/v1/completions", json=body, timeout=500
            ).json()
            return found["choices"][0]["logprobs"]

    asked = traffic().requests
    with tiny_server(folder, *ARGS, *args, env=env) as server:
        if args:
            hang_up(server)
        with ThreadPoolExecutor(len(asked)) as pool:
            sent = [pool.submit(ask, i, r.prompt_tokens, r.output_tokens) for i, r in enumerate(asked)]
            found = [future.result() for future in sent]
        time.sleep(1.5)  # the recorder writes twice a second
    return found


def test_async_scheduling_answers_as_stock_vllm_and_decides_again_as_it_did(tmp_path: Path) -> None:
    path, site = tmp_path / "run.jsonl.gz", tmp_path / "site"
    stock = answers(tmp_path)
    install_plugin(site, "switch", SWITCH, group="vllm.general_plugins", call="register")
    ours = ("--scheduler", "sarathi", "--sarathi-record", str(path))
    found = answers(tmp_path, *ours, env={"PYTHONPATH": str(site)})
    assert "(SarathiAsyncScheduler)" in (tmp_path / "server.log").read_text()

    for theirs, mine in zip(stock, found, strict=True):
        assert len(mine["tokens"]) == len(theirs["tokens"])
        for at, (one, other) in enumerate(zip(theirs["tokens"], mine["tokens"], strict=True)):
            if one != other:  # the first difference must be a near tie; what follows is another text
                best, second = sorted(theirs["top_logprobs"][at].values(), reverse=True)[:2]
                assert best - second < NEAR_TIE, (at, one, other)
                break

    recording = read_recording(path)
    steps = [step for step in recording.steps if step.shape.kind != "empty"]
    ahead = [later.schedule_ns < sooner.end_ns for sooner, later in pairwise(steps)]
    assert sum(ahead) > len(ahead) / 2  # planned while the one before ran
    known = [(step.end_ns - step.start_ns) / step.predicted_ns for step in steps[len(steps) // 2 :]]
    assert 0.5 < median(known) < 2
    report = replay(recording)
    assert report.different == 0, report.differences
    assert report.preemptions > 0
    assert "aborted" in {t.status for t in recording.timelines}
    assert not [step for step in steps if step.fallback]
