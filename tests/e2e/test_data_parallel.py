"""Two engines behind two API servers: whichever answers, page and counters hold both; an engine that dies is named."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import requests

from sarathi_plugin.engine.serve import allow_list
from scripts.browser import wait_for
from tests.e2e.support import MODEL, Metrics, tiny_server

if TYPE_CHECKING:
    from pathlib import Path

    from sarathi_plugin.load.server import RunningServer

pytestmark = [pytest.mark.vllm, pytest.mark.server, pytest.mark.slow]

REQUESTS, TOKENS, LOOKS = 12, 30, 6


def get(server: RunningServer, **query: str) -> dict[str, Any]:
    """The live document from whichever API server takes a new connection."""
    with requests.Session() as session:
        session.trust_env = False
        found: dict[str, Any] = session.get(f"{server.url}/sarathi/api", params=query, timeout=30).json()
        return found


def ask(server: RunningServer, number: int) -> None:
    """One request to its end."""
    body = {
        "model": MODEL,
        "prompt": list(range(20 + number, 60 + number)),
        "max_tokens": TOKENS,
        "ignore_eos": True,
    }
    with requests.Session() as session:
        session.trust_env = False
        session.post(f"{server.url}/v1/completions", json=body, timeout=300).raise_for_status()


def decided(document: dict[str, Any]) -> int:
    """Deadlines met and missed of all classes."""
    return sum(found["met"] + found["missed"] for found in document["classes"])


def states_of(document: dict[str, Any]) -> list[str]:
    """What is said of each engine."""
    return [engine["state"] for engine in document["engines"]]


def counted(metrics: Metrics, **labels: str) -> float:
    """The same by the counters."""
    return sum(
        metrics.total(f"sarathi_deadlines_{name}_total", slo_class="standard", **labels)
        for name in ("met", "missed")
    )


def test_both_engines_are_on_the_page_of_each_api_server_and_a_dead_one_is_named(tmp_path: Path) -> None:
    env = {"VLLM_PLUGINS": allow_list(os.environ.get("VLLM_PLUGINS"))}
    two = ("--scheduler", "sarathi", "--data-parallel-size", "2", "--api-server-count", "2")
    with tiny_server(tmp_path, *two, env=env) as server:
        with ThreadPoolExecutor(REQUESTS) as pool:
            list(pool.map(lambda number: ask(server, number), range(REQUESTS)))
        total = REQUESTS * TOKENS
        wait_for(lambda: decided(get(server)) >= total, "the last tokens on the page")
        wait_for(lambda: counted(Metrics(server.url)) >= total, "the last tokens in the counters")
        for _ in range(LOOKS):  # a new connection each: the kernel deals them out to both API servers
            document, metrics = get(server), Metrics(server.url)
            assert states_of(document) == ["live", "live"]
            assert decided(document) == counted(metrics) == total
            parts = [decided(get(server, engine=str(index))) for index in (0, 1)]
            assert parts == [counted(metrics, engine=str(index)) for index in (0, 1)]
            assert min(parts) > 0
        (second,) = (
            process
            for process in psutil.Process(server.pid).children(recursive=True)
            if "EngineCore_DP1" in "".join(process.cmdline())
        )
        second.kill()
        # vLLM ends a server that has lost an engine some seconds later; until then the page says which one it is.
        seen = wait_for(lambda: states if "gone" in (states := states_of(get(server))) else None, "the loss")
        assert seen == ["live", "gone"]
