"""``StepPlan.skip_some`` on the real scheduler: those decodes stay out of the step, nobody else does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from sarathi_plugin.core import StepPlan
from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.policies.base import Policy
from tests.engine.emulator import Engine, Listener, VirtualClock, linear_time, make_scheduler
from tests.engine.workloads import MS, assert_all_answered, make_script, play

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.vllm

PROMPT_TOKENS = 60


class EveryOther:
    """Leaves out every other decode. seen: per plan, when it was made, whom it kept, and their context."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[set[str], int]] = {}
        self.scheduler: Any = None
        spy = self

        @dataclass(frozen=True)
        class Test(Policy):
            """A policy of a test."""

            def plan(self, view: Any) -> StepPlan:
                running = [r for r in spy.scheduler.running if not r.is_prefill_chunk]
                places = tuple(range(view.step % 2, len(running), 2)) if len(running) > 1 else ()
                kept = [r for place, r in enumerate(running) if place not in places]
                context = sum(r.num_computed_tokens for r in kept)
                spy.seen[view.now_ns] = {r.request_id for r in kept}, context
                budget = max(1, len(kept)) + PROMPT_TOKENS
                return StepPlan(prefills=list(view.prefills), skip_some=places, budget=budget)

        self._policy = Test

    @hookimpl
    def register_policies(self, register: Callable[..., None]) -> None:
        register("test", self._policy)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_the_chosen_decodes_stay_out_and_nobody_else(
    config_for: Callable[..., Any], asynchronous: bool
) -> None:
    config = config_for(budget=512, max_model_len=1024, asynchronous=asynchronous)
    spy, clock, listener = EveryOther(), VirtualClock(), Listener()
    spy.scheduler = make_scheduler(config, "test", clock=clock, observer=listener, installs={"test": spy})
    engine = Engine(spy.scheduler, clock, linear_time(10 * MS, MS // 10), depth=2 if asynchronous else 1)

    trace = play(engine, make_script(5, 40, output=(10, 60), gap_ms=60))
    assert_all_answered(engine)

    records = {record.schedule_ns: record for record in listener.steps}
    skipped = 0
    for step in trace.steps:
        kept, context = spy.seen[step.schedule_ns]
        shape = records[step.schedule_ns].shape
        assert sum(step.tokens[name] for name in step.prompts) <= PROMPT_TOKENS + 1
        assert set(step.decodes) <= kept
        if not asynchronous:  # running ahead, one whose last token is in flight is kept and has nothing to do
            assert set(step.decodes) == kept
            assert shape.decode_context == context
        assert shape.decode_rows == len(step.decodes)
        skipped += len(kept) > 2
    assert skipped > 20
