"""An adversary who always has somebody more urgent: the hopeless prompt ends in time all the same, nobody idles."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from sarathi_plugin.policies.sarathi import Sarathi
from sarathi_plugin.policies.sizing import TILES
from tests.engine.emulator import Engine, VirtualClock, linear_time, make_scheduler
from tests.engine.workloads import MS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.vllm

STEP_NS = 10 * MS
LATE_MS = 300_000
"""So long ago came the hopeless prompt: nothing can save it, and it is far beyond four times its allowance."""


def smallest_chunk(decodes: int) -> int:
    """Tokens up to the next tile edge: what a step of the overdue prompt carries at least."""
    return next(edge for edge in TILES if edge > decodes) - decodes


def bound(tokens: int, decodes: int) -> int:
    """Steps after which a prompt of so many tokens has its first one, if it is the furthest overdue."""
    return Sarathi().ageing * (-(-tokens // smallest_chunk(decodes)) + 1)


def play_adversary(
    config: Any,
    decodes: int,
    token_us: int,
    tokens: int,
    queue: int,
    short: tuple[int, int],
) -> int:
    """Steps until the hopeless prompt has its first token. queue: fresh short prompts that wait at any time.

    Meanwhile no step is empty, and every decode is in every step (seen in the sync loop).
    """
    clock = VirtualClock()
    scheduler = make_scheduler(config, "sarathi", blocks=20_000, clock=clock)
    depth = 2 if config.scheduler_config.async_scheduling else 1
    engine = Engine(scheduler, clock, linear_time(STEP_NS, token_us * 1000), depth=depth)
    rng = Random(0)
    for _ in range(decodes):
        engine.submit(clock.ns, 16, 4000, slo_class="interactive")
    for _ in range(200):
        engine.step()
    engine.submit(clock.ns - LATE_MS * MS, tokens, 4, name="hopeless", slo_class="interactive")
    engine.admit()
    begin = len(engine.trace.steps)
    for _ in range(4 * bound(tokens, decodes)):
        unfinished = len(scheduler.waiting) + sum(r.is_prefill_chunk for r in scheduler.running)
        for _ in range(queue - unfinished):
            engine.submit(clock.ns, rng.randint(*short), 1, slo_class="interactive")
        engine.admit()
        decoding = {r.request_id for r in scheduler.running if not r.is_prefill_chunk}
        engine.step()
        if depth == 1:
            assert decoding <= set(engine.trace.steps[-1].tokens), "a decode was left out"
        assert engine.trace.empty == 0, "an idle step while prompts wait"
        if engine.trace.tokens["hopeless"]:
            return len(engine.trace.steps) - begin
    raise AssertionError("the hopeless prompt starves")


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("decodes", "token_us", "tokens", "queue", "short"),
    [
        pytest.param(24, 1200, 400, 6, (16, 16), id="slow machine, tiny prompts"),
        pytest.param(16, 1720, 400, 6, (16, 16), id="every chunk makes decodes late"),
        pytest.param(32, 880, 400, 6, (10, 40), id="slow machine, small prompts"),
        pytest.param(100, 200, 2000, 40, (300, 900), id="many decodes, a long queue"),
        pytest.param(8, 100, 2000, 20, (2000, 3000), id="prompts longer than the hopeless one"),
    ],
)
def test_a_hopeless_prompt_ends_within_the_stated_bound(
    config_for: Callable[..., Any],
    asynchronous: bool,
    decodes: int,
    token_us: int,
    tokens: int,
    queue: int,
    short: tuple[int, int],
) -> None:
    """docs/policies.md: at most 16 (k + 1) n / c steps with chunks of c tokens; nobody is further overdue, so k = 0."""
    config = config_for(budget=8192, max_model_len=8192, asynchronous=asynchronous)

    steps = play_adversary(config, decodes, token_us, tokens, queue, short)

    assert steps <= bound(tokens, decodes)


ANSWER = 200
"""Tokens of every short answer where memory is scarce."""


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("slo", ["deadline", "gap"])
def test_a_long_prompt_ends_though_growing_answers_want_all_memory(
    config_for: Callable[..., Any], asynchronous: bool, slo: str
) -> None:
    """docs/policies.md: memory that comes free stays free for it, and it loses its place only to those before it.

    200 blocks of 16 tokens; the prompt and its answer need 140 of them in the end, every short one 14. Twelve wait at
    any time, and they are more urgent.
    """
    config = config_for(budget=8192, max_model_len=2400, asynchronous=asynchronous)
    clock = VirtualClock()
    scheduler = make_scheduler(config, "sarathi", blocks=201, clock=clock, slo=slo)
    engine = Engine(scheduler, clock, linear_time(STEP_NS, 100_000), depth=2 if asynchronous else 1)

    def keep_queue() -> None:
        for _ in range(12 - len(scheduler.waiting)):
            engine.submit(clock.ns, 24, ANSWER, slo_class="interactive")
        engine.admit()

    for _ in range(3 * ANSWER):
        keep_queue()
        engine.step()
    assert engine.trace.preemptions, "memory is not scarce"
    engine.submit(clock.ns - LATE_MS * MS, 1600, 640, name="long", slo_class="interactive")
    engine.admit()
    running = len(scheduler.running)
    for _ in range(running * ANSWER + 640 + bound(1600, running)):
        keep_queue()
        engine.step()
    assert engine.trace.finished.get("long"), "the long prompt starves"
