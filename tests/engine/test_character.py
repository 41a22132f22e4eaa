"""Every policy behaves on the real scheduler as its paper says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sarathi_plugin.deadlines import DeadlineState
from tests.engine.emulator import Engine, Listener, VirtualClock, linear_time, make_scheduler
from tests.engine.workloads import (
    CLASSES,
    CURVE,
    MS,
    assert_all_answered,
    class_of,
    decoding_at,
    make_script,
    play,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.workloads import Script

pytestmark = pytest.mark.vllm

FIXED_NS, TOKEN_NS = 10 * MS, MS // 10
MODES = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def run(
    config: Any,
    name: str,
    script: Script,
    *,
    blocks: int = 4000,
    listener: Listener | None = None,
    **settings: Any,
) -> Engine:
    clock = VirtualClock()
    scheduler = make_scheduler(
        config, name, blocks=blocks, clock=clock, observer=listener or Listener(), **settings
    )
    depth = 2 if config.scheduler_config.async_scheduling else 1
    engine = Engine(scheduler, clock, linear_time(FIXED_NS, TOKEN_NS), depth=depth)
    play(engine, script)
    assert_all_answered(engine)
    return engine


@MODES
def test_prefill_first_never_mixes_and_computes_prompts_first(
    config_for: Callable[..., Any], asynchronous: bool
) -> None:
    config = config_for(budget=2048, max_model_len=2048, asynchronous=asynchronous)

    trace = run(config, "prefill-first", make_script(1, 60, prompt=(1, 1500), gap_ms=80)).trace

    assert {step.kind for step in trace.steps} == {"decode", "prefill"}
    for step in trace.steps:
        if step.kind == "decode":
            assert not step.waiting, "a prompt that fits waits while decodes run"
    prompts = [tokens for step in trace.steps if step.prompts for tokens in step.tokens.items()]
    assert len(prompts) == len(trace.tokens), "a prompt was split"


@MODES
def test_prefill_first_never_mixes_under_memory_pressure_either(
    config_for: Callable[..., Any], asynchronous: bool
) -> None:
    config = config_for(budget=1024, max_model_len=1024, asynchronous=asynchronous)

    trace = run(config, "prefill-first", make_script(2, 40, gap_ms=30, output=(20, 120)), blocks=72).trace

    assert trace.preemptions > 0
    assert {step.kind for step in trace.steps} == {"decode", "prefill"}


@MODES
def test_orca_never_splits_a_prompt_and_mixes_at_once(
    config_for: Callable[..., Any], asynchronous: bool
) -> None:
    config = config_for(budget=2048, max_model_len=2048, asynchronous=asynchronous)

    engine = run(config, "orca", make_script(3, 60, prompt=(1, 1500), gap_ms=80))

    seen: dict[str, int] = {}
    for step in engine.trace.steps:
        for name in step.prompts:
            assert name not in seen, "a prompt was split"
            seen[name] = step.tokens[name]
    assert seen == {name: request.num_prompt_tokens for name, request in engine.submitted.items()}
    assert sum(step.kind == "mixed" for step in engine.trace.steps) > 20


def test_orca_decodes_never_pause(config_for: Callable[..., Any]) -> None:
    engine = run(config_for(budget=2048, max_model_len=2048), "orca", make_script(3, 60, prompt=(1, 1500)))

    for step in engine.trace.steps:
        assert set(decoding_at(engine, step)) == set(step.decodes)


def test_orca_reserves_memory_for_the_longest_answer(config_for: Callable[..., Any]) -> None:
    config = config_for(budget=2048, max_model_len=2048)

    trace = run(config, "orca", make_script(4, 40, gap_ms=5), blocks=3 * 2048 // 16 + 10).trace

    assert max(len(step.tokens) for step in trace.steps) == 3
    assert trace.preemptions == 0


@MODES
def test_request_level_admits_nobody_before_the_batch_is_done(
    config_for: Callable[..., Any], asynchronous: bool
) -> None:
    config = config_for(budget=2048, max_model_len=2048, asynchronous=asynchronous)

    engine = run(config, "request-level", make_script(5, 60, prompt=(1, 400), gap_ms=40))

    trace = engine.trace
    batch: frozenset[str] = frozenset()
    batches = 0
    for step in trace.steps:
        if step.prompts:
            assert not step.decodes
            for name in batch:
                assert trace.tokens[name][-1] <= step.schedule_ns, "somebody of the last batch still runs"
            batch, batches = step.prompts, batches + 1
        else:
            assert set(step.decodes) <= batch
    assert 1 < batches < 30


@MODES
def test_alternate_takes_turns_and_never_mixes(config_for: Callable[..., Any], asynchronous: bool) -> None:
    config = config_for(budget=1024, max_model_len=2048, asynchronous=asynchronous)

    engine = run(config, "alternate", make_script(6, 60, prompt=(1, 1500), gap_ms=50), token_budget=256)

    trace = engine.trace
    assert {step.kind for step in trace.steps} == {"decode", "prefill"}
    assert max(step.total for step in trace.steps if step.prompts) == 256
    turns = 0
    for before, step in zip(trace.steps, trace.steps[1:], strict=False):
        ahead = 2 if asynchronous else 1
        ready = [
            n
            for n in decoding_at(engine, before)
            if len(trace.tokens[n]) > ahead + outputs_at(trace, n, step)
        ]
        if before.kind == "prefill" and ready:
            assert step.kind == "decode", "two prefill turns beside decodes"
            turns += 1
        if before.kind == "decode" and before.waiting and step.waiting:
            assert step.kind == "prefill", "two decode turns beside prompts"
    assert turns > 50


@MODES
def test_alternate_wastes_no_turn_on_a_prompt_that_does_not_fit(
    config_for: Callable[..., Any], asynchronous: bool
) -> None:
    """A prefill turn with no memory for the next prompt would be an empty step, beside decodes that could run."""
    config = config_for(budget=1024, max_model_len=1024, asynchronous=asynchronous)

    trace = run(
        config, "alternate", make_script(7, 40, gap_ms=20, output=(20, 120)), blocks=72, token_budget=256
    ).trace

    assert trace.preemptions > 0
    assert {step.kind for step in trace.steps} == {"decode", "prefill"}
    assert trace.empty < 0.05 * len(trace.steps)


def outputs_at(trace: Any, name: str, step: Any) -> int:
    """Tokens a request had when a step was planned."""
    return sum(t <= step.schedule_ns for t in trace.tokens[name])


def late_tokens(engine: Engine, since_ns: int) -> list[tuple[str, int]]:
    """(request, token index) of further tokens that missed their deadline after ``since_ns``."""
    late = []
    for name, times in engine.trace.tokens.items():
        slo = CLASSES[class_of(engine, name)]
        first_ns = CURVE.prefill_ns(engine.submitted[name].num_prompt_tokens) + slo.ttft_slack_ns
        state = DeadlineState.from_arrival(engine.trace.arrivals[name], first_ns, slo.tbt_ns)
        for index, now in enumerate(times):
            if state.emit(now) and index and now > since_ns:
                late.append((name, index))
    return late


def ready_since(listener: Listener) -> int:
    """When the step-time model had seen enough (six steps with prompt tokens, by ``steptime.online``)."""
    prefills = [record for record in listener.steps if record.shape.prefill_tokens]
    return int(prefills[12].end_ns)


@MODES
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slo_class", ["standard", "interactive"])
def test_sarathi_misses_no_reachable_decode_deadline(
    config_for: Callable[..., Any], asynchronous: bool, seed: int, slo_class: str
) -> None:
    """Decode steps take 10 ms and a little; prompts of up to 4,000 tokens take up to 0.4 s at a stretch."""
    config = config_for(budget=8192, max_model_len=8192, asynchronous=asynchronous)
    listener = Listener()
    script = make_script(seed, 80, prompt=(10, 4000), output=(5, 100), gap_ms=300, classes=[slo_class])

    engine = run(config, "sarathi", script, listener=listener)

    since = ready_since(listener)
    assert late_tokens(engine, since) == []
    assert sum(step.kind == "mixed" for step in engine.trace.steps) > 50
    tbt_ns = CLASSES[slo_class].tbt_ns
    for step in engine.trace.steps:
        if step.decodes and step.schedule_ns > since:
            assert step.duration_ns <= 4 * tbt_ns * 1.05, "stall_cap x D_d"


def test_orca_misses_deadlines_on_the_same_work(config_for: Callable[..., Any]) -> None:
    """So that the test above says something: the work does stall a policy that does not size its chunks."""
    listener = Listener()
    script = make_script(0, 80, prompt=(10, 4000), output=(5, 100), gap_ms=300, classes=["interactive"])

    engine = run(config_for(budget=8192, max_model_len=8192), "orca", script, listener=listener)

    assert len(late_tokens(engine, ready_since(listener))) > 20


@MODES
@pytest.mark.parametrize("stall_cap", [1.0, 3.0])
def test_no_step_of_sarathi_exceeds_its_stall_cap(
    config_for: Callable[..., Any], asynchronous: bool, stall_cap: float
) -> None:
    config = config_for(budget=8192, max_model_len=8192, asynchronous=asynchronous)
    listener = Listener()
    script = make_script(9, 60, prompt=(2000, 8000), output=(50, 150), gap_ms=800)

    engine = run(config, "sarathi", script, listener=listener, policy={"stall_cap": stall_cap})

    since = ready_since(listener)
    longest = max(s.duration_ns for s in engine.trace.steps if s.decodes and s.schedule_ns > since)
    limit = stall_cap * CLASSES["standard"].tbt_ns
    assert 0.75 * limit <= longest <= 1.05 * limit


@MODES
@pytest.mark.parametrize("slo_class", ["standard", "interactive"])
@pytest.mark.parametrize("late_share", [0, 0.02])
def test_gap_mode_keeps_gaps_within_the_target_but_for_the_share_that_may_be_late(
    config_for: Callable[..., Any], asynchronous: bool, slo_class: str, late_share: float
) -> None:
    config = config_for(budget=8192, max_model_len=8192, asynchronous=asynchronous)
    listener = Listener()
    script = make_script(10, 80, prompt=(10, 4000), output=(5, 100), gap_ms=200, classes=[slo_class])

    engine = run(config, "sarathi", script, listener=listener, slo="gap", policy={"late_share": late_share})

    since, tbt_ns = ready_since(listener), CLASSES[slo_class].tbt_ns
    gaps = [
        gap
        for name, times in engine.trace.tokens.items()
        for gap, now in zip(engine.trace.gaps(name), times[1:], strict=True)
        if now > since
    ]
    if late_share:
        assert 2 * tbt_ns < max(gaps) <= 4 * tbt_ns
        assert 0 < sum(gap > tbt_ns for gap in gaps) <= late_share * len(gaps)
    else:
        assert 0.75 * tbt_ns < max(gaps) <= tbt_ns


@MODES
def test_sarathi_static_carries_decodes_always_and_its_budget_at_most(
    config_for: Callable[..., Any], asynchronous: bool
) -> None:
    config = config_for(budget=2048, max_model_len=2048, asynchronous=asynchronous)

    engine = run(config, "sarathi-static", make_script(12, 60, prompt=(1, 1500)), token_budget=128)

    assert max(step.total for step in engine.trace.steps) == 128
    assert sum(step.kind == "mixed" for step in engine.trace.steps) > 50
    if not asynchronous:
        for step in engine.trace.steps:
            assert set(decoding_at(engine, step)) == set(step.decodes)
