"""Corners of vLLM's scheduler that few servers meet: caches reset in the middle, sessions, hybrid models, pipelines."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from vllm.sampling_params import SamplingParams
from vllm.v1.request import Request

from tests.engine.emulator import Engine, Listener, VirtualClock, counted, linear_time, make_scheduler
from tests.engine.test_kept_out import LONG, busy, ttft_ms
from tests.engine.workloads import MS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.vllm

MODES = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def waiting(scheduler: Any) -> list[str]:
    """Requests that a policy sees waiting."""
    table = scheduler.sarathi._table
    return [table.row_at(int(slot)).request_id for slot in table.prompts.waiting]


@MODES
def test_requests_that_lose_their_place_and_get_it_back_in_one_step_wait_no_longer(
    config_for: Callable[..., Any], asynchronous: bool
) -> None:
    """As with ``/pause?mode=keep``, which resets the caches of those that run."""
    engine = busy(config_for(budget=2048, asynchronous=asynchronous))
    engine.scheduler.reset_prefix_cache(reset_running_requests=True)
    for _ in range(6):
        engine.step()
    assert waiting(engine.scheduler) == []
    engine.submit(engine.clock.ns, LONG, 5, "long")
    assert ttft_ms(engine, "long") <= 210


class Session:
    """A client of vLLM's streaming input: one request, whose text comes in pieces."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        engine.trace.tokens["session"] = []

    def say(self, tokens: int, answer: int, *, more: bool = True) -> None:
        sampling = SamplingParams(max_tokens=answer, ignore_eos=True, temperature=0.0)
        self.engine.scheduler.add_request(
            Request(
                "session",
                [5] * tokens,
                sampling,
                None,
                arrival_time=self.engine.clock.ns / 1e9,
                resumable=more,
            )
        )

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.engine.step()


def of_sessions(engine: Engine) -> dict[str, float]:
    """Requests that ended, and tokens, beside those of the four long answers that still run."""
    found = counted(engine.drain_messages())
    ended = {labels[1]: n for (name, labels), n in found.items() if name == "requests_finished"}
    failed = {
        name for name, _ in found if name in ("plugin_errors", "policy_fallbacks", "untracked_requests")
    }
    assert not failed
    return ended


@MODES
def test_a_session_is_measured_turn_by_turn(config_for: Callable[..., Any], asynchronous: bool) -> None:
    engine = busy(config_for(budget=2048, asynchronous=asynchronous))
    before = of_sessions(engine).get("finished", 0)
    client = Session(engine)
    client.say(50, 3)
    client.steps(10)
    assert "session" not in engine.scheduler.sarathi._table.rows  # its user is silent
    assert waiting(engine.scheduler) == []
    client.steps(300)
    client.say(40, 5)
    client.steps(12)
    client.say(1, 1, more=False)
    client.steps(5)
    engine.submit(engine.clock.ns, LONG, 5, "long")
    assert ttft_ms(engine, "long") <= 210
    client.steps(30)  # what ended is told four times a second
    assert of_sessions(engine) == {"finished": before + 2 + 1}
    assert len(engine.trace.tokens["session"]) == 8


@MODES
def test_turns_that_were_said_ahead_are_measured_and_break_nothing(
    config_for: Callable[..., Any], asynchronous: bool
) -> None:
    """Input came while a turn ran: its row went with the turn, and one that came later took a decode for a prompt."""
    engine = busy(config_for(budget=2048, asynchronous=asynchronous))
    before = of_sessions(engine).get("finished", 0)
    client = Session(engine)
    client.say(50, 3)
    client.say(40, 30)
    client.say(40, 30)
    client.steps(15)
    assert "session" in engine.scheduler.sarathi._table.rows
    client.say(40, 30)
    assert waiting(engine.scheduler) == []
    engine.submit(engine.clock.ns, LONG, 5, "long")
    assert ttft_ms(engine, "long") <= 210
    client.steps(120)
    client.say(1, 1, more=False)
    client.steps(5)
    assert of_sessions(engine) == {"finished": before + 4 + 1}
    assert len(engine.trace.tokens["session"]) == 93
    assert engine.scheduler.sarathi._policy is not None


@pytest.mark.parametrize(("policy", "settings"), [("sarathi", {"slo": "gap"}), ("sarathi-static", {})])
def test_chunks_of_hybrid_models_are_whole_blocks(
    config_for: Callable[..., Any], policy: str, settings: dict[str, Any]
) -> None:
    """vLLM cuts them down to blocks of some hundred tokens: a smaller one would compute nothing, for ever."""
    config = config_for(budget=8192, max_seqs=512)
    clock = VirtualClock()
    scheduler = make_scheduler(config, policy, blocks=12_000, clock=clock, **settings)
    engine = Engine(scheduler, clock, linear_time(10 * MS, MS // 6))
    for _ in range(200):
        engine.submit(clock.ns, 64, 3000)
    for i in range(20):
        engine.submit(clock.ns + i * 20 * MS, 300, 2)
    for _ in range(200):
        engine.step()
    block_size = config.cache_config.block_size
    scheduler.need_mamba_block_aligned_split = True
    config.cache_config.block_size = 400
    try:
        engine.submit(clock.ns, LONG, 5, "long")
        assert ttft_ms(engine, "long", 60) is not None
    finally:
        config.cache_config.block_size = block_size


def test_a_step_has_the_context_of_its_own_decodes(config_for: Callable[..., Any]) -> None:
    """Two steps in flight: a request decodes in every second one, as with two pipeline stages."""
    config = config_for(budget=2048)
    clock, listener = VirtualClock(), Listener()
    scheduler = make_scheduler(config, "sarathi", clock=clock, observer=listener)
    engine = Engine(scheduler, clock, linear_time(10 * MS, MS // 50), depth=2)
    for i in range(8):
        engine.submit(clock.ns + i * 7 * MS, 100, 400)
    found, schedule = [], scheduler.schedule

    def watched() -> Any:
        output = schedule()
        requests = scheduler.requests
        before = sum(
            requests[name].num_computed_tokens - n for name, n in output.num_scheduled_tokens.items()
        )
        found.append((scheduler.sarathi._in_flight[id(output)].shape, before, len(scheduler.running)))
        return output

    scheduler.schedule = watched
    for _ in range(300):
        engine.step()
    decodes = [(shape.decode_context, before) for shape, before, _ in found if shape.kind == "decode"]
    assert len(decodes) > 250
    assert any(0 < shape.decode_rows < running for shape, _, running in found)
    assert all(seen == real for seen, real in decodes)


@pytest.mark.parametrize("policy", ["sarathi", "sarathi-static", "orca", "niyama"])
@pytest.mark.parametrize("each_step", [1, 60])
def test_nothing_is_remembered_of_requests_that_are_gone(
    config_for: Callable[..., Any], policy: str, each_step: int
) -> None:
    config = config_for(budget=2048, prefix_caching=True)
    clock = VirtualClock()
    scheduler = make_scheduler(config, policy, clock=clock)
    engine = Engine(scheduler, clock, linear_time(10 * MS, MS // 50))
    for _ in range(50):
        for _ in range(each_step):
            engine.submit(clock.ns, 17, 1)
        engine.step()
    engine.run()
    driver = scheduler.sarathi
    adapter = driver._adapter
    kept = (driver._table.rows, driver._in_flight, adapter._hits._new, adapter._admission._rests)
    assert [len(what) for what in kept] == [0, 0, 0, 0]


def test_a_model_that_cannot_say_whether_it_is_ready_does_not_end_the_engine(
    config_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = busy(config_for(budget=2048))
    model = engine.scheduler.sarathi._model
    monkeypatch.setattr(type(model), "ready", property(lambda _self: 1 / 0))
    engine.submit(engine.clock.ns, LONG, 5, "long")
    assert ttft_ms(engine, "long") is not None


def test_a_policy_that_fails_now_and_then_is_complained_about_once(
    config_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = busy(config_for(budget=2048))
    policy = type(engine.scheduler.sarathi._policy)
    plan = policy.plan

    def every_fifth(self: Any, view: Any) -> Any:
        if view.step % 5 == 0:
            raise RuntimeError("on purpose")
        return plan(self, view)

    monkeypatch.setattr(policy, "plan", every_fifth)
    with caplog.at_level(logging.ERROR, logger="sarathi_plugin"):
        for _ in range(40):
            engine.step()
    assert sum("scheduling policy failed" in record.getMessage() for record in caplog.records) == 1
    engine.scheduler.sarathi.flush()
    found = counted(engine.drain_messages())
    assert sum(n for (name, _), n in found.items() if name == "policy_fallbacks") == 8
