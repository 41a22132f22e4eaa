"""Waiting requests that vLLM does not admit, whatever is free: nobody under way stands still for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.request import RequestStatus

from sarathi_plugin.engine.admission import Admission
from tests.engine.emulator import Engine, VirtualClock, linear_time, make_scheduler
from tests.engine.workloads import MS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.vllm

LONG = 6000
"""Three steps of 2,048 tokens: 160 ms beside four decodes, as the steps here take 10 ms and 20 us a token."""


def busy(
    config: Any, policy: str | None = "sarathi", *, blocks: int = 4000, token_ns: int = MS // 50
) -> Engine:
    """Four long answers run, and the step-time model knows its machine."""
    clock = VirtualClock()
    scheduler = make_scheduler(config, policy, blocks=blocks, clock=clock)
    depth = 2 if config.scheduler_config.async_scheduling else 1
    engine = Engine(scheduler, clock, linear_time(10 * MS, token_ns), depth=depth)
    for _ in range(4):
        engine.submit(clock.ns, 100, 4000)
    for i in range(20):
        engine.submit(clock.ns + i * 20 * MS, 300, 2)
    for _ in range(120):
        engine.step()
    return engine


def ttft_ms(engine: Engine, name: str, turns: int = 400) -> int | None:
    """Until its first token, None when it has none after so many turns."""
    for _ in range(turns):
        if engine.trace.tokens.get(name):
            return (engine.trace.tokens[name][0] - engine.trace.arrivals[name]) // MS
        engine.step()
    return None


def grammar(engine: Engine, request: Any) -> None:
    del engine
    request.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR


def transfer(engine: Engine, request: Any) -> None:
    """As while a KV connector fetches."""
    scheduler = engine.scheduler
    scheduler.waiting.remove_request(request)
    request.status = RequestStatus.WAITING_FOR_REMOTE_KVS
    scheduler.kv_holding_waiting.add_request(request)


def pause(engine: Engine, request: Any) -> None:
    del request
    engine.scheduler.set_pause_state(PauseState.PAUSED_NEW)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("policy", ["sarathi", "niyama", "fair-batching"])
@pytest.mark.parametrize("keep_out", [grammar, transfer, pause])
def test_a_short_prompt_that_cannot_start_holds_up_nobody(
    config_for: Callable[..., Any], keep_out: Any, policy: str, asynchronous: bool
) -> None:
    """It would be the first to go. The only sign is that a step which was left to it carried no prompt."""
    engine = busy(config_for(budget=2048, asynchronous=asynchronous), policy)
    engine.submit(engine.clock.ns, LONG, 5, "long")
    engine.step()
    blocked = engine.submit(engine.clock.ns, 50, 5, "blocked")
    engine.admit()
    keep_out(engine, engine.scheduler.requests[blocked])
    assert ttft_ms(engine, "long") <= 210
    assert not engine.trace.tokens["blocked"]


def test_one_whose_grammar_is_ready_starts_at_once(config_for: Callable[..., Any]) -> None:
    """It was tried before in vain, so it rests for some steps, at most as many as it has waited.

    The eight before it take 960 ms for their tokens alone.
    """
    engine = busy(config_for(budget=2048))
    for i in range(8):
        engine.submit(engine.clock.ns, LONG, 5, f"long{i}")
    engine.step()
    engine.submit(engine.clock.ns, 50, 5, "blocked")
    engine.admit()
    request = engine.scheduler.requests["blocked"]
    grammar(engine, request)
    for _ in range(6):
        engine.step()
    ready_ns, request.status = engine.clock.ns, RequestStatus.WAITING
    assert ttft_ms(engine, "blocked") is not None
    took = engine.trace.tokens["blocked"][0] - ready_ns
    others = [engine.trace.tokens[f"long{i}"] for i in range(8)]
    assert took <= 600 * MS
    assert sum(not tokens or tokens[0] > engine.trace.tokens["blocked"][0] for tokens in others) >= 4


def test_a_rest_is_twice_as_long_each_time_and_ends_when_the_request_is_in() -> None:
    admission, row, step, lengths = Admission(None, reorders=True), SimpleNamespace(request_id="r"), 0, []
    for _ in range(8):
        admission.in_vain([row], step)
        begin = step
        while "r" in admission.resting(step):
            step += 1
        lengths.append(step - begin)
    assert lengths == [2, 4, 8, 16, 32, 64, 64, 64]
    admission.in_vain([row], step)
    admission.gone("r")
    assert not admission.resting(step)
    admission.in_vain([row], step)
    assert "r" not in admission.resting(step + 2)


def test_requests_for_a_lora_adapter_without_room_hold_up_nobody(config_for: Callable[..., Any]) -> None:
    """vLLM's default is room for one adapter."""
    engine = busy(config_for(budget=2048))
    engine.scheduler.lora_config = SimpleNamespace(max_loras=1)
    lora = lambda number: SimpleNamespace(lora_int_id=number, lora_name=str(number))  # noqa: E731
    for request in engine.scheduler.running:
        request.lora_request = lora(1)
    start = engine.clock.ns
    for i in range(5):
        engine.submit(start + i * 500 * MS, LONG, 5, f"long{i}")
        engine.submitted[f"long{i}"].lora_request = lora(1)
        for j in range(5):
            name = engine.submit(start + i * 500 * MS + (50 + j * 100) * MS, 50, 5)
            engine.submitted[name].lora_request = lora(2)
    assert max(ttft_ms(engine, f"long{i}") for i in range(5)) <= 210


def test_under_priority_a_low_one_never_stops_those_above_it(config_for: Callable[..., Any]) -> None:
    """And while it waits no more prompts are under way than without it."""
    engine = busy(config_for(budget=2048, scheduling_policy="priority"), token_ns=MS // 4)
    names = [engine.submit(engine.clock.ns + i, 3000, 5, f"high{i}", priority=0) for i in range(6)]
    engine.submit(engine.clock.ns + 300 * MS, 30, 5, "low", priority=9)
    most = 0
    while not all(engine.trace.tokens.get(name) for name in names):
        engine.step()
        most = max(most, sum(request.is_prefill_chunk for request in engine.scheduler.running))
    assert most <= 2
    waits = [ttft_ms(engine, name) for name in names]
    assert waits == sorted(waits)
    assert waits[2] <= 2600  # 2,609 under stock, 4,700 of the first one where the low one goes before them


def test_under_priority_a_higher_one_overtakes_those_under_way(config_for: Callable[..., Any]) -> None:
    engine = busy(config_for(budget=2048, scheduling_policy="priority"), token_ns=MS // 4)
    engine.submit(engine.clock.ns, LONG, 5, "low", priority=9)
    engine.step()
    engine.submit(engine.clock.ns, 30, 5, "high", priority=0)
    assert ttft_ms(engine, "high") <= 600  # the step it came in, and its own
    assert not engine.trace.tokens["low"]


def test_one_that_holds_its_kv_memory_is_not_kept_out_for_want_of_it(config_for: Callable[..., Any]) -> None:
    """A decode instance of a prefill and decode split, with less memory free than a prompt."""
    engine = busy(config_for(budget=2048), blocks=1450)
    engine.submit(engine.clock.ns, 5000, 5, "fetched")
    engine.admit()
    scheduler = engine.scheduler
    request = scheduler.requests["fetched"]
    scheduler.waiting.remove_request(request)
    assert scheduler.kv_cache_manager.allocate_slots(request, 4999, delay_cache_blocks=True) is not None
    request.num_computed_tokens = 4999
    scheduler.kv_holding_waiting.add_request(request)
    pool = scheduler.kv_cache_manager.block_pool
    kept = pool.get_new_blocks(pool.get_num_free_blocks() - 20)
    assert len(kept) > 300
    assert ttft_ms(engine, "fetched", 30) <= 20
