"""Async scheduling, two steps in flight: time is measured and deadlines are counted as if one looked at the device."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sarathi_plugin.core import StepPlan
from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.policies.base import Policy
from tests.engine.emulator import Engine, Listener, VirtualClock, histograms, linear_time, make_scheduler
from tests.engine.workloads import CLASSES, MS, assert_all_answered, make_script, play

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sarathi_plugin.core import StepShape, StepView

pytestmark = pytest.mark.vllm

FIXED_NS, TOKEN_NS = 10 * MS, MS // 10
MODES = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


class Exact:
    """A step-time model that knows the emulated machine."""

    ready, margin = True, 0.0

    def predict_ns(self, shape: StepShape) -> int:
        return FIXED_NS + TOKEN_NS * (shape.decode_tokens + shape.prefill_tokens)

    def learn(self, steps: Sequence[tuple[StepShape, int]]) -> None:
        for shape, duration_ns in steps:
            assert duration_ns == self.predict_ns(shape)


class Models:
    @hookimpl
    def register_step_time_models(self, register: Callable[..., None]) -> None:
        register("exact", Exact)


@dataclass
class Seen:
    """What the policy was shown before one step."""

    now_ns: int
    free_at_ns: int
    deadlines: dict[str, int]


class Spy:
    """Offers a policy that notes what it sees. skip(step) leaves the decodes out."""

    def __init__(self, skip: Callable[[int], bool] = lambda step: False) -> None:
        self.seen: list[Seen] = []
        self.engine: Engine | None = None
        spy = self

        @dataclass(frozen=True)
        class Test(Policy):
            """A policy of a test."""

            def plan(self, view: StepView) -> StepPlan:
                assert spy.engine is not None
                running = spy.engine.scheduler.running
                names = [r.request_id for r in running if not r.is_prefill_chunk]
                deadlines = view.decode_deadline_ns.tolist() if names else []
                found = dict(zip(names, deadlines, strict=True))
                spy.seen.append(Seen(view.now_ns, view.free_at_ns, found))
                return StepPlan(prefills=list(view.prefills), skip_decodes=skip(view.step), budget=200)

        self._policy = Test

    @hookimpl
    def register_policies(self, register: Callable[..., None]) -> None:
        register("test", self._policy)


def watch(config: Any, spy: Spy, listener: Listener) -> Engine:
    clock = VirtualClock()
    scheduler = make_scheduler(
        config,
        "test",
        clock=clock,
        observer=listener,
        installs={"test": spy, "models": Models()},
        step_time="exact",
    )
    depth = 2 if config.scheduler_config.async_scheduling else 1
    spy.engine = Engine(scheduler, clock, linear_time(FIXED_NS, TOKEN_NS), depth=depth)
    return spy.engine


@MODES
@pytest.mark.parametrize("policy", ["vllm", "sarathi", "alternate", "fair-batching"])
def test_measured_step_times_are_the_device_s(
    config_for: Callable[..., Any], asynchronous: bool, policy: str
) -> None:
    config = config_for(budget=512, max_model_len=1024, asynchronous=asynchronous)
    clock, listener, random = VirtualClock(), Listener(), Random(3)
    scheduler = make_scheduler(config, policy, clock=clock, observer=listener)
    engine = Engine(scheduler, clock, lambda _: random.randint(MS, 200 * MS), depth=2 if asynchronous else 1)

    trace = play(engine, make_script(3, 40, aborts=5))

    records = [record for record in listener.steps if record.shape.kind != "empty"]
    assert [r.duration_ns for r in records] == [s.duration_ns for s in trace.steps]
    assert [(r.start_ns, r.end_ns) for r in records] == [(s.start_ns, s.end_ns) for s in trace.steps]
    assert [r.shape.kind for r in records] == [s.kind for s in trace.steps]
    assert [r.shape.prefill_tokens for r in records] == [
        sum(s.tokens[n] for n in s.prompts) for s in trace.steps
    ]
    naive = [r.end_ns - r.schedule_ns for r in records]
    assert (naive != [s.duration_ns for s in trace.steps]) == asynchronous


@MODES
@pytest.mark.parametrize(
    "skip", [lambda step: False, lambda step: step % 4 == 0], ids=["all run", "some skipped"]
)
def test_a_deadline_is_that_of_the_token_this_step_would_yield(
    config_for: Callable[..., Any], asynchronous: bool, skip: Callable[[int], bool]
) -> None:
    """Every token on time, so the k-th token is due k x D_d after the first one's deadline, whatever is in flight."""
    spy, listener = Spy(skip), Listener()
    engine = watch(config_for(budget=512, max_model_len=1024, asynchronous=asynchronous), spy, listener)

    trace = play(engine, make_script(4, 40, classes=["standard", "interactive", "batch"], gap_ms=150))

    assert all(timeline.missed == 0 for timeline in listener.timelines.values())
    done: dict[str, int] = {}
    yielded: dict[str, int] = {}
    steps = iter(trace.steps)
    compared = 0
    for seen, decided in zip(spy.seen, trace.decisions, strict=True):
        if not decided[0]:
            continue
        step = next(steps)
        for name, deadline in seen.deadlines.items():
            if name in step.tokens:
                first = listener.timelines[name]
                due = first.arrival_ns + first.prefill_ns + first.ttft_slack_ns
                assert deadline == due + yielded[name] * first.tbt_ns
                compared += 1
        for name, count in step.tokens.items():
            done[name] = done.get(name, 0) + count
            if done[name] >= engine.submitted[name].num_prompt_tokens:
                yielded[name] = yielded.get(name, 0) + 1
    assert compared > 200


@MODES
def test_free_at_is_when_the_steps_in_flight_end(config_for: Callable[..., Any], asynchronous: bool) -> None:
    spy, listener = Spy(), Listener()
    engine = watch(config_for(budget=512, max_model_len=1024, asynchronous=asynchronous), spy, listener)

    trace = play(engine, make_script(5, 40))

    ahead = 0
    ends = [0]
    steps = iter(trace.steps)
    for seen, decided in zip(spy.seen, trace.decisions, strict=True):
        assert seen.free_at_ns == max(seen.now_ns, ends[-1])
        ahead += seen.free_at_ns > seen.now_ns
        if decided[0]:
            ends.append(next(steps).end_ns)
    assert (ahead > 100) == asynchronous


def test_a_late_token_in_flight_restarts_the_schedule_when_it_comes(config_for: Callable[..., Any]) -> None:
    """The next token is due D_d after the late one, known before that one is there: a policy may still make it."""
    spy, listener = Spy(), Listener()
    engine = watch(config_for(budget=512, max_model_len=1024, asynchronous=True), spy, listener)
    engine.clock.ns += 60 * 10**9
    engine.submit(engine.clock.ns - 50 * 10**9, 150, 10, slo_class="standard")

    trace = engine.run()

    first, second = spy.seen[0], spy.seen[1]
    assert first.deadlines == {}
    assert second.now_ns < trace.tokens["r1"][0], "planned before the late token came"
    assert second.deadlines == {"r1": trace.tokens["r1"][0] + CLASSES["standard"].tbt_ns}
    assert listener.timelines["r1"].met == 9


@MODES
def test_the_online_model_predicts_a_linear_machine(
    config_for: Callable[..., Any], asynchronous: bool
) -> None:
    config = config_for(budget=512, max_model_len=1024, asynchronous=asynchronous)
    clock, listener = VirtualClock(), Listener()
    scheduler = make_scheduler(config, "sarathi", clock=clock, observer=listener)
    engine = Engine(scheduler, clock, linear_time(FIXED_NS, TOKEN_NS), depth=2 if asynchronous else 1)

    play(engine, make_script(6, 80, prompt=(1, 900)))

    records = [record for record in listener.steps if record.shape.kind != "empty"][100:]
    errors = [abs(r.predicted_ns / r.duration_ns - 1) for r in records]
    assert len(errors) > 100
    assert np.quantile(errors, 0.9) < 0.01
    assert max(errors) < 0.05


def test_speculative_tokens_of_one_step_are_a_gap_and_zeros(config_for: Callable[..., Any]) -> None:
    config = config_for(budget=512, max_model_len=1024, spec_tokens=2)
    clock, listener = VirtualClock(), Listener()
    scheduler = make_scheduler(config, "sarathi", clock=clock, observer=listener)
    engine = Engine(scheduler, clock, linear_time(FIXED_NS, TOKEN_NS), accept=lambda drafted: drafted)

    trace = play(engine, make_script(7, 30, output=(10, 60)))

    assert_all_answered(engine)
    bundles = [count for counts, _ in listener.gaps for count in counts]
    assert set(bundles) == {1, 2, 3}, "some steps yield three tokens, a last one what is left"
    for name, timeline in listener.timelines.items():
        assert timeline.token_ns == tuple(trace.tokens[name])
        assert timeline.gaps_ns == trace.gaps(name)
        assert timeline.gaps_ns.count(0) > len(timeline.gaps_ns) / 2
    gaps = [gap for name in trace.tokens for gap in trace.gaps(name)]
    seconds, buckets = histograms(engine.drain_messages())["tbt_seconds", ("standard",)]
    assert sum(buckets) == len(gaps)
    assert buckets[0] == gaps.count(0), (
        "the lowest bucket holds the zeros alone: no step takes under a millisecond"
    )
    assert seconds == pytest.approx(sum(gaps) / 1e9)
