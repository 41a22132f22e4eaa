"""``vllm`` decides exactly as stock vLLM does; ``sarathi-static`` is stock vLLM with a smaller budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.emulator import Engine, Listener, VirtualClock, counted, linear_time, make_scheduler
from tests.engine.workloads import MS, assert_all_answered, decoding_at, make_script, play

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.workloads import Script

pytestmark = pytest.mark.vllm

MODES = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
LARGE, TINY = 4000, 72


def run(config: Any, name: str | None, script: Script, *, blocks: int = LARGE, **settings: Any) -> Engine:
    clock = VirtualClock()
    scheduler = make_scheduler(config, name, blocks=blocks, clock=clock, **settings)
    depth = 2 if config.scheduler_config.async_scheduling else 1
    engine = Engine(
        scheduler, clock, linear_time(20 * MS, MS // 10), depth=depth, accept=lambda drafted: drafted // 2
    )
    play(engine, script)
    assert_all_answered(engine)
    return engine


@MODES
@pytest.mark.parametrize("caching", [False, True], ids=["uncached", "cached"])
@pytest.mark.parametrize("blocks", [LARGE, TINY], ids=["large", "tiny"])
@pytest.mark.parametrize("seed", range(3))
def test_vllm_with_our_telemetry_decides_as_stock_vllm_does(
    config_for: Callable[..., Any], asynchronous: bool, caching: bool, blocks: int, seed: int
) -> None:
    config = config_for(budget=512, max_model_len=1024, asynchronous=asynchronous, prefix_caching=caching)
    script = make_script(seed, aborts=6, shared=100, gap_ms=40, prompt=(1, 300), output=(40, 120))

    stock = run(config, None, script, blocks=blocks)
    ours = run(config, "vllm", script, blocks=blocks, observer=Listener())

    assert ours.trace.decisions == stock.trace.decisions
    assert ours.trace.tokens == stock.trace.tokens
    assert ours.trace.finished == stock.trace.finished
    assert stock.trace.aborted_ns
    assert (stock.trace.preemptions > 0) == (blocks == TINY)


@pytest.mark.parametrize(
    "more", [{"spec_tokens": 2}, {"scheduling_policy": "priority"}], ids=["spec", "priority"]
)
@pytest.mark.parametrize("blocks", [LARGE, TINY], ids=["large", "tiny"])
def test_the_same_with_speculative_decoding_and_with_priorities(
    config_for: Callable[..., Any], more: dict[str, Any], blocks: int
) -> None:
    config = config_for(budget=512, max_model_len=1024, **more)
    script = make_script(11, aborts=4, gap_ms=30, prompt=(1, 300), output=(40, 120))

    stock, ours = (run(config, name, script, blocks=blocks) for name in (None, "vllm"))

    assert ours.trace.decisions == stock.trace.decisions


@MODES
@pytest.mark.parametrize("caching", [False, True], ids=["uncached", "cached"])
@pytest.mark.parametrize("budget", [64, 256])
def test_sarathi_static_is_stock_vllm_with_that_budget(
    config_for: Callable[..., Any], asynchronous: bool, caching: bool, budget: int
) -> None:
    """Without preemption the two agree step by step. Stock vLLM keeps its running requests in order of admission; under
    first-come-first-served only the one admitted last can have an unfinished prompt: decodes come first by themselves.
    """
    variant = {"max_model_len": 1024, "asynchronous": asynchronous, "prefix_caching": caching, "max_seqs": 64}
    script = make_script(5, aborts=6, shared=100, gap_ms=30)

    stock = run(config_for(budget=budget, **variant), None, script)
    ours = run(config_for(budget=1024, **variant), "sarathi-static", script, token_budget=budget)

    assert stock.trace.preemptions == 0
    assert ours.trace.decisions == stock.trace.decisions
    assert any(step.kind == "mixed" for step in ours.trace.steps)


def test_a_resumed_prompt_is_where_sarathi_static_and_stock_vllm_part(config_for: Callable[..., Any]) -> None:
    """With priorities stock vLLM resumes and admits out of arrival order: ours still puts decodes first, so a chunk
    never takes the budget of a decode. The decisions differ; the promise does not.
    """
    variant = {"max_model_len": 1024, "max_seqs": 64, "scheduling_policy": "priority"}
    script = make_script(6, gap_ms=10, output=(20, 60))

    stock = run(config_for(budget=64, **variant), None, script, blocks=TINY)
    ours = run(config_for(budget=1024, **variant), "sarathi-static", script, blocks=TINY, token_budget=64)

    assert stock.trace.preemptions > 0
    assert max(step.total for step in ours.trace.steps) <= 64


@pytest.mark.parametrize(("budget", "spec"), [(16, 0), (16, 2), (256, 2)])
@pytest.mark.parametrize("seed", range(2))
def test_sarathi_static_never_stops_a_decode_nor_exceeds_its_budget(
    config_for: Callable[..., Any], budget: int, spec: int, seed: int
) -> None:
    """Prompts alone cannot fill the batch beyond its budget, but draft tokens can: then the decodes win."""
    config = config_for(budget=1024, max_model_len=1024, spec_tokens=spec)
    script = make_script(seed, 60, gap_ms=5, prompt=(1, 12), output=(40, 120), aborts=5)

    engine = run(config, "sarathi-static", script, token_budget=budget)

    crowded = 0
    for step in engine.trace.steps:
        decoding = decoding_at(engine, step)
        assert set(decoding) <= set(step.decodes)
        need = sum(step.tokens[name] for name in step.decodes)
        assert step.total <= max(budget, need)
        crowded += need > budget
        if need >= budget:
            assert not step.prompts
    counters = counted(engine.drain_messages())
    assert counters.get(("decodes_over_budget", ()), 0) == crowded
    assert (crowded > 0) == (budget == 16 and spec == 2)
