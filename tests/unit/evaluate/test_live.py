"""Live runs against a stand-in server: what is stored, and what is refused (real servers: tests/e2e)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.evaluate import live
from sarathi_plugin.evaluate.arms import resolve
from sarathi_plugin.evaluate.live import LiveRunner, Reached
from sarathi_plugin.evaluate.plan import Unit, units_of
from sarathi_plugin.evaluate.store import Store
from sarathi_plugin.load.server import ServerError
from tests.unit.evaluate.experiments import experiment, settings
from tests.unit.load.conftest import stand_in  # noqa: F401  (a fixture)

CASE = settings()["workloads"][0] | {"loads": [50.0], "requests": 20, "warm_up": 3, "output_scale": 0.01}
UNIT = Unit("run", "chats", 50.0, 11, 0, "ours")


def answer(handler, prompt=None):
    body = handler.server.bodies[-1]
    handler.begin()
    for total in range(1, body["max_tokens"] + 1):
        last = total == body["max_tokens"]
        handler.token(
            " x", total=total, finish="length" if last else None, prompt=prompt or len(body["prompt"])
        )
    handler.event("[DONE]")
    handler.end()


@pytest.fixture
def runner(stand_in, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    """``runner(script)``: a runner whose arm is a stand-in server."""
    monkeypatch.setattr(live, "SETTLE_S", 0.0)
    monkeypatch.setattr(live, "FLUSH_S", 0.0)

    def make(script: Callable[..., None] = answer) -> LiveRunner:
        found = LiveRunner(experiment(mode="live", workloads=[CASE]), Store(tmp_path), "e", lambda _: None)
        found.servers["ours"] = Reached(stand_in(script).url, "m")
        return found

    return make


def test_a_run_is_stored_with_all_that_was_measured(runner):
    one = runner()
    one.run(UNIT)
    [found] = one.store.runs([UNIT])
    assert found.facts["environment"] == "e"
    assert found.facts["figures"]["tokens_per_s"] > 0
    assert found.facts["validity"]["client_cpu"] > 0
    assert found.facts["validity"]["errors"] == found.facts["validity"]["wrong_prompts"] == 0
    assert len(found.timelines()) == 23
    assert len(found.timelines(skip=3)) == 20


def test_a_client_that_lags_is_refused(runner, monkeypatch: pytest.MonkeyPatch):
    one = runner()
    monkeypatch.setattr(live, "run_open_loop", lagging)
    reason = one.run(UNIT)[0]
    assert reason.startswith("the client sent up to ")
    assert not one.store.run(UNIT).valid


def lagging(workload, send):
    """Open loop by a client that is held up for 30 ms before every send."""
    from sarathi_plugin.load.dispatch import run_open_loop

    def late(request, arrival_ns):
        time.sleep(0.03)
        return send(request, arrival_ns)

    return run_open_loop(workload, late)


def test_prompts_of_another_length_are_refused(runner):
    one = runner(lambda handler: answer(handler, prompt=7))
    assert "23 prompts had another length than asked" in one.run(UNIT)


def test_errors_are_refused(runner):
    def script(handler):
        handler.send_error(500, "no")

    assert "23 of 23 requests failed (http 500)" in runner(script).run(UNIT)


def test_a_server_that_is_gone_ends_it_and_its_run_is_not_kept(runner, tmp_path: Path):
    one = runner()
    log = tmp_path / "server.log"
    log.write_text("out of memory\n")
    one.servers["ours"] = Reached("http://127.0.0.1:9", "m", log=log)
    with pytest.raises(ServerError, match=r"(?s)The server of ours is gone\..*out of memory"):
        one.run(UNIT)
    assert one.store.runs([UNIT]) == []


def test_cores_that_are_not_there(tmp_path: Path):
    wanted = experiment(mode="live", live={"client_cores": [4096]})
    one = LiveRunner(wanted, Store(tmp_path), "e", lambda _: None)
    before = os.sched_getaffinity(0)
    with pytest.raises(ConfigError, match="may not use core 4096"), one.up([]):
        pass
    assert os.sched_getaffinity(0) == before


def test_servers_of_arms_differ_in_what_they_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "_model", lambda _: ("model", ("--dtype", "float32")))
    wanted = experiment(
        mode="live",
        arms=[
            {"name": "stock", "engine": {"max_num_batched_tokens": 48}},
            {"name": "ours", "scheduler": "sarathi", "sarathi": {"slo": "gap"}, "flags": ["--seed", "1"]},
        ],
        live={"flags": ["--x"], "env": {"A": "b"}},
    )
    one = LiveRunner(wanted, Store(tmp_path), "e", lambda _: None)
    stock, ours = (one._spec(arm, one._recording(arm)) for arm in resolve(wanted, {}))
    alike = ("--dtype", "float32", "--x", "--no-async-scheduling")
    assert stock.args == (
        *alike, "--max-model-len", "8192", "--max-num-batched-tokens", "48", "--max-num-seqs", "48",
    )  # fmt: skip
    config = tmp_path / "servers" / "ours.yaml"
    assert ours.args[:10] == (
        *alike, "--max-model-len", "8192", "--max-num-seqs", "64", "--scheduler", "sarathi"
    )  # fmt: skip
    assert ours.args[10:12] == ("--sarathi-config", str(config))
    assert ours.args[12] == "--sarathi-record"
    assert ours.args[14:] == ("--seed", "1")
    assert "slo: gap" in config.read_text()
    assert "tbt_ms: 50" in config.read_text()
    assert dict(stock.env) == dict(ours.env) == {"A": "b"}


def test_every_unit_has_a_server():
    wanted = experiment(mode="live")
    arms = resolve(wanted, {})
    assert {unit.arm for unit in units_of(wanted, [arm.name for arm in arms])} == {arm.name for arm in arms}
