"""The baselines of the papers do what their docstrings say."""

from __future__ import annotations

import pytest

from sarathi_plugin.core import StepPlan
from sarathi_plugin.policies.alternate import Alternate
from sarathi_plugin.policies.base import blocks_for, by_arrival
from sarathi_plugin.policies.orca import Orca
from sarathi_plugin.policies.prefill_first import PrefillFirst
from sarathi_plugin.policies.request_level import RequestLevel
from sarathi_plugin.policies.sarathi_static import SarathiStatic
from sarathi_plugin.policies.stock import Stock
from tests.unit.policies.views import make_row, make_view

OLD = make_row("old", arrived_ms=-500, due_ms=900)
NEW = make_row("new", arrived_ms=-100, due_ms=100)
LEVERS = ("budget", "prefills", "waiting", "skip_decodes", "skip_prefills", "max_running", "whole_prompts")


def levers(plan: StepPlan) -> dict[str, object]:
    """What a plan moves, apart from stock."""
    stock = StepPlan()
    return {name: getattr(plan, name) for name in LEVERS if getattr(plan, name) != getattr(stock, name)}


def test_by_arrival_is_first_come_first_served():
    assert by_arrival([NEW, OLD]) == [OLD, NEW]


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2)])
def test_blocks_for_rounds_up(tokens: int, blocks: int):
    assert blocks_for(tokens, 16) == blocks


@pytest.mark.parametrize("decodes", [(), (10.0, 20.0)])
def test_stock_touches_no_lever(decodes: tuple[float, ...]):
    plan = Stock().plan(make_view(decodes, [NEW, OLD], [NEW]))
    assert plan == StepPlan()
    assert Stock().max_batched_tokens(4096) is None


@pytest.mark.parametrize("decodes", [(), (10.0, -5000.0)])
def test_sarathi_static_is_a_fixed_budget_first_come_first_served(decodes: tuple[float, ...]):
    plan = SarathiStatic().plan(make_view(decodes, [NEW, OLD], [NEW]))
    assert levers(plan) == {"budget": 512, "prefills": [OLD, NEW]}
    assert plan.limit == "fixed"
    assert SarathiStatic().max_batched_tokens(4096) == 512
    assert SarathiStatic(token_budget=64).max_batched_tokens(4096) == 64


def test_orca_mixes_whole_prompts_with_decodes_and_reserves_memory_for_the_longest_answer():
    plan = Orca().plan(make_view([10.0], [NEW, OLD], [NEW], max_model_tokens=4096, total_blocks=1024))
    assert levers(plan) == {"prefills": [OLD, NEW], "whole_prompts": True, "max_running": 4}
    assert Orca().max_batched_tokens(4096) == 4096


def test_orca_admits_one_even_when_memory_is_short():
    assert Orca().plan(make_view([10.0], max_model_tokens=4096, total_blocks=255)).max_running == 1


# -- prefill-first -----------------------------------------------------------------------------------------------


def test_prefill_first_stops_decodes_while_prompts_run():
    plan = PrefillFirst().plan(make_view([10.0], [NEW, OLD]))
    assert levers(plan) == {"prefills": [OLD, NEW], "skip_decodes": True, "whole_prompts": True}
    assert plan.reason


def test_prefill_first_stops_decodes_for_a_prompt_that_fits():
    fits = make_view([10.0], (), [make_row(tokens=160)], free_blocks=10)
    assert PrefillFirst().plan(fits).skip_decodes


@pytest.mark.parametrize(
    "reason",
    [{"free_blocks": 9}, {"max_requests": 1}, {"previous_empty": True}],
    ids=["no memory", "batch full", "nothing ran before"],
)
def test_prefill_first_decodes_while_the_next_prompt_cannot_start(reason: dict[str, object]):
    view = make_view([10.0], (), [make_row(tokens=160)], **({"free_blocks": 10} | reason))
    assert levers(PrefillFirst().plan(view)) == {"max_running": 1, "whole_prompts": True}


def test_prefill_first_looks_at_the_head_of_the_queue_only():
    view = make_view([10.0], (), [make_row(tokens=161), make_row(tokens=1)], free_blocks=10)
    assert not PrefillFirst().plan(view).skip_decodes


def test_prefill_first_runs_decodes_beside_prompts_after_an_empty_step():
    plan = PrefillFirst().plan(make_view([10.0], [OLD], previous_empty=True))
    assert not plan.skip_decodes


def test_prefill_first_admits_when_nobody_runs():
    assert PrefillFirst().plan(make_view((), (), [make_row(tokens=160)], free_blocks=1)).max_running is None


# -- request-level -----------------------------------------------------------------------------------------------


def test_request_level_admits_nobody_to_a_running_batch():
    assert RequestLevel().plan(make_view([10.0, 20.0], [OLD], [NEW])).max_running == 3


def test_request_level_admits_a_batch_that_memory_can_hold_when_nobody_runs():
    view = make_view((), (), [NEW], max_model_tokens=4096, total_blocks=1024)
    assert levers(RequestLevel().plan(view)) == {"prefills": [], "max_running": 4, "whole_prompts": True}
    assert RequestLevel().plan(make_view(total_blocks=1)).max_running == 1


# -- alternate ---------------------------------------------------------------------------------------------------


def test_alternate_gives_prompts_the_even_steps():
    plan = Alternate().plan(make_view([10.0], [NEW, OLD], step=2))
    assert levers(plan) == {"budget": 512, "prefills": [OLD, NEW], "skip_decodes": True}
    assert plan.reason == "prefill turn"


def test_alternate_gives_decodes_the_odd_steps_and_admits_nobody():
    plan = Alternate().plan(make_view([10.0], [NEW, OLD], [NEW], step=3))
    assert levers(plan) == {"budget": 512, "skip_prefills": True, "max_running": 3}
    assert plan.reason == "decode turn"


@pytest.mark.parametrize("step", [2, 3])
def test_alternate_gives_every_step_to_whoever_has_no_rival(step: int):
    for view in (
        make_view([10.0], step=step),
        make_view((), [OLD], step=step),
        make_view([10.0], [OLD], step=step, previous_empty=True),
    ):
        plan = Alternate().plan(view)
        assert not plan.skip_decodes
        assert not plan.skip_prefills
        assert plan.max_running is None


def test_alternate_counts_waiting_prompts_as_rivals():
    assert Alternate().plan(make_view([10.0], (), [NEW], step=2)).skip_decodes
    assert Alternate().plan(make_view([10.0], (), [NEW], step=3)).max_running == 1
