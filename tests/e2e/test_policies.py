"""Policies of others on a real server: the example package serves; one that always fails harms nobody."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import requests

from sarathi_plugin.demo import tiny
from sarathi_plugin.load.server import vllm_command
from tests.e2e.support import ARGS, MODEL, ROOT, Metrics, install_package, install_plugin, tiny_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.vllm, pytest.mark.server]

BROKEN = '''
"""A policy that raises at every step."""
from dataclasses import dataclass
from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.policies.base import Policy

@dataclass(frozen=True)
class Broken(Policy):
    def plan(self, view):
        raise RuntimeError("on purpose")

@hookimpl
def register_policies(register):
    register("broken", Broken)
'''


def answers(url: str, number: int) -> list[int]:
    """Output tokens of so many requests."""
    found = []
    with requests.Session() as session:
        session.trust_env = False
        for i in range(number):
            body = {"model": MODEL, "prompt": [10 + i] * 40, "max_tokens": 8, "ignore_eos": True}
            answer = session.post(f"{url}/v1/completions", json=body, timeout=120)
            assert answer.status_code == 200, answer.text
            found.append(answer.json()["usage"]["completion_tokens"])
    return found


def test_the_example_package_adds_a_policy(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install_package(ROOT / "examples" / "custom_policy", site)
    with tiny_server(tmp_path, "--scheduler", "shortest-first", env={"PYTHONPATH": str(site)}) as server:
        assert answers(server.url, 3) == [8, 8, 8]
        metrics = Metrics(server.url)
        assert metrics.total("sarathi_build_info", policy="shortest-first") == 1
        assert metrics.total("sarathi_step_budget_limit_total", limit="fixed") > 0
        assert metrics.total("sarathi_policy_fallbacks_total") == 0


def test_a_policy_that_always_fails_leaves_every_request_answered(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install_plugin(site, "broken", BROKEN)
    with tiny_server(tmp_path, "--scheduler", "broken", env={"PYTHONPATH": str(site)}) as server:
        assert answers(server.url, 3) == [8, 8, 8]
        metrics = Metrics(server.url)
        assert metrics.total("sarathi_policy_fallbacks_total") >= 3
        assert metrics.total("sarathi_policy_enabled") == 0
        assert metrics.total("sarathi_output_tokens_total") == 24


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--scheduler", "saratti"], ["Unknown scheduler 'saratti'", "known: sarathi,"]),
        (
            ["--scheduler", "sarathi", "--sarathi-token-budget", "4096", "--max-num-batched-tokens", "1024"],
            ["4096", "max_num_batched_tokens (1024)"],
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence_and_exit_code_2(
    tmp_path: Path, flags: list[str], words: list[str]
) -> None:
    tiny.write(tmp_path)
    done = subprocess.run(
        [vllm_command(), "serve", str(tmp_path), *ARGS, *flags],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2, done.stderr[-2000:]
    assert all(word in last for word in words), last
    assert "Traceback" not in done.stderr
