"""More adapters than there is room for: those that run never need more of it, also when a step leaves some out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.engine.emulator import Engine, VirtualClock, linear_time, make_scheduler
from tests.engine.test_kept_out import LONG, busy, ttft_ms
from tests.engine.workloads import MS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.vllm


def submit(engine: Engine, at_ns: int, prompt: int, adapter: int, name: str = "", **more: Any) -> str:
    """A request for an adapter; 0 is the base model."""
    name = engine.submit(at_ns, prompt, 5, name, **more)
    if adapter:
        engine.submitted[name].lora_request = SimpleNamespace(lora_int_id=adapter, lora_name=str(adapter))
    return name


def room_for(engine: Engine, adapters: int) -> None:
    engine.scheduler.lora_config = SimpleNamespace(max_loras=adapters)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_one_for_another_adapter_comes_after_the_prompt_that_holds_the_room(
    config_for: Callable[..., Any], asynchronous: bool
) -> None:
    """It is more urgent; let in beside the other, which no decode accompanies, it ended the engine."""
    engine = busy(config_for(budget=2048, asynchronous=asynchronous))
    room_for(engine, 1)
    submit(engine, engine.clock.ns, LONG, 1, "long")
    engine.step()
    submit(engine, engine.clock.ns, 50, 2, "other")
    assert ttft_ms(engine, "long") <= 210
    assert ttft_ms(engine, "other") is not None


@pytest.mark.parametrize("adapter", [0, 1])
def test_one_for_the_same_adapter_or_none_still_overtakes(
    config_for: Callable[..., Any], adapter: int
) -> None:
    engine = busy(config_for(budget=2048), token_ns=MS // 4)
    room_for(engine, 1)
    submit(engine, engine.clock.ns, LONG, 1, "long")
    engine.step()
    start = engine.clock.ns
    submit(engine, start, 50, 2, "other")
    submit(engine, start, 30, adapter, "short")
    assert ttft_ms(engine, "short") <= 600
    assert not engine.trace.tokens["long"]
    assert not engine.trace.tokens["other"]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("policy", "queue"),
    [
        ("sarathi", "fcfs"),
        ("sarathi", "priority"),
        ("niyama", "fcfs"),
        ("fair-batching", "fcfs"),
        ("prefill-first", "priority"),
        ("alternate", "fcfs"),
    ],
)
@pytest.mark.parametrize("room", [1, 2])
def test_nobody_is_lost_and_no_more_adapters_run_than_there_is_room_for(
    config_for: Callable[..., Any], policy: str, queue: str, room: int, asynchronous: bool
) -> None:
    config = config_for(budget=8192, asynchronous=asynchronous, scheduling_policy=queue)
    clock, rng = VirtualClock(), np.random.default_rng(5)
    scheduler = make_scheduler(config, policy, clock=clock)
    engine = Engine(scheduler, clock, linear_time(10 * MS, MS // 10), depth=1 + asynchronous)
    room_for(engine, room)
    names = [
        submit(
            engine,
            int(i * 60 * MS),
            int(rng.integers(2000, 6000) if i % 4 == 0 else rng.integers(5, 100)),
            int(rng.integers(0, 4)),
            priority=int(rng.integers(0, 2)) if queue == "priority" else 0,
        )
        for i in range(60)
    ]
    while engine.step():
        running = {r.lora_request.lora_int_id for r in scheduler.running if r.lora_request}
        assert len(running) <= room
        assert len({r.request_id for r in scheduler.waiting}) == len(scheduler.waiting)
    assert sorted(engine.trace.finished) == sorted(names)
    assert scheduler.sarathi._policy is not None
    assert scheduler.sarathi.failed_steps == 0


def test_those_taken_out_of_the_queue_come_back_to_their_places(config_for: Callable[..., Any]) -> None:
    engine = busy(config_for(budget=2048), token_ns=MS // 4)
    scheduler = engine.scheduler
    room_for(engine, 1)
    submit(engine, engine.clock.ns, LONG, 1, "long")
    engine.step()
    names = [submit(engine, engine.clock.ns, 3000, 1 + i % 3, f"w{i}") for i in range(9)]
    engine.admit()
    lora = scheduler.sarathi._adapter._admission.lora
    lora.take_out()
    assert [request.request_id for request in scheduler.waiting] == ["w0", "w3", "w6"]
    scheduler.waiting.prepend_request(scheduler.waiting.pop_request())
    scheduler.waiting.prepend_request(engine.submitted["long"])  # as one that loses its place
    lora.put_back()
    assert [request.request_id for request in scheduler.waiting] == ["long", *names]
