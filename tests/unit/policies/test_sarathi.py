"""``sarathi``: who comes first, how large a step is, who is admitted.

The machine is linear and known (10 ms a step, 1 ms a decode, 0.1 ms a prompt token), so chunks are worked out by hand.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sarathi_plugin.config import ConfigError, Settings
from sarathi_plugin.core import NS_PER_MS, RequestRow
from sarathi_plugin.policies.sarathi import FRONT, Sarathi
from sarathi_plugin.policies.sizing import TILES
from tests.unit.policies.views import INTERACTIVE, LinearModel, make_row, make_view

SARATHI = Sarathi()
EXACT = Sarathi(tiles=False)
"""Sizes by sixteens, so that a limit is met closely."""

LONG = [make_row("long", tokens=20_000, due_ms=60_000)]
"""A prompt that is not in any hurry."""

LOST = [make_row("lost", tokens=20_000, due_ms=-1e7)]
DUE = [100.0] * 10
"""Ten decodes, which take 20 ms by themselves."""


def chunk_of(policy: Sarathi, *args: object, **kwargs: object) -> tuple[int, str]:
    """(prompt tokens, what bound them)."""
    view = make_view(*args, **kwargs)
    plan = policy.plan(view)
    return plan.budget - view.decode_tokens, plan.limit


def names(rows: list[RequestRow] | None) -> list[str] | None:
    return None if rows is None else [row.request_id for row in rows]


# -- size: what the decodes can spare ----------------------------------------------------------------------------


def test_without_hurry_a_chunk_fills_the_slack_of_the_decodes_up_to_a_tile():
    assert chunk_of(SARATHI, DUE, LONG) == (758, "slack")  # 768 in all; 800 would just fit, 896 would not
    assert chunk_of(EXACT, DUE, LONG) == (790, "slack")


def test_the_tightest_decode_decides():
    assert chunk_of(EXACT, [*DUE, 61.0, 300.0], LONG) == (388, "slack")  # 61 - 22 ms is 390


def test_steps_in_flight_take_their_share_of_the_slack():
    assert chunk_of(EXACT, DUE, LONG, free_at_ms=30.0) == (486, "slack")


def test_the_margin_of_the_model_is_kept_free():
    assert chunk_of(EXACT, DUE, LONG, model=LinearModel(margin=0.25)) == (
        598,
        "slack",
    )  # 80 / 1.25 ... 100 / 1.25 - 20


def test_banked_slack_is_used_up_to_the_stall_cap():
    assert chunk_of(EXACT, [150.0] * 10, LONG) == (1286, "slack")
    assert chunk_of(EXACT, [5000.0] * 10, LONG)[0] == 3798  # 4 x 100 - 20 ms
    assert chunk_of(Sarathi(tiles=False, stall_cap=2), [5000.0] * 10, LONG)[0] == 1798


def test_a_decode_that_is_late_anyway_does_not_hold_the_others_back():
    """Its next miss counts a period on: up to there a longer step costs nothing more."""
    assert chunk_of(EXACT, [-10.0] * 10, LONG)[0] == 694  # 90 ms
    assert chunk_of(EXACT, [-150.0] * 10, LONG)[0] == 294  # 50 ms


def test_no_prompt_however_urgent_is_worth_a_miss():
    tight = [30.0, *[400.0] * 9]
    for prompts in (LONG, LOST, [make_row("now", tokens=3000, due_ms=50)]):
        assert chunk_of(EXACT, tight, prompts) == (86, "slack")
    assert chunk_of(EXACT, [110.0] * 90, [make_row("now", tokens=3000, due_ms=50)]) == (86, "slack")


def test_where_every_chunk_would_make_a_decode_late_prompts_go_on_at_least_harm():
    """Decodes of 20 ms."""
    assert chunk_of(SARATHI, [20.6] * 10, LONG) == (6, "slack")  # 16 tokens in all
    for policy, tbt_ms in ((SARATHI, 22.0), (Sarathi(saving=False), 24.0), (Sarathi(saving=False), 100.0)):
        chunk, limit = chunk_of(policy, [20.2] * 10, LONG, tbt_ms=tbt_ms)
        assert limit == "floor"
        assert chunk > 0


def test_a_time_per_token_that_not_even_one_decode_meets_makes_no_prompt_crawl():
    """A decode by itself takes 501 ms of 100: chunks of 15 tokens would help nobody, and take 300 ms a token."""
    slow = LinearModel(step_ms=500)
    chunk, limit = chunk_of(SARATHI, [-200.0, -950.0], LONG, model=slow)
    assert (chunk, limit) == (8190, "engine")  # 1,321 ms, within four times 501
    chunk, limit = chunk_of(SARATHI, [], LONG, model=slow)
    assert (chunk, limit) == (8192, "engine")
    slower = LinearModel(step_ms=500, token_ms=1)
    assert chunk_of(SARATHI, [-200.0, -950.0], LONG, model=slower) == (1278, "stall cap")


def test_one_that_can_be_on_time_is_not_made_late_beside_those_that_never_are():
    slow = LinearModel(step_ms=500)
    view = make_view([-200.0, 900.0], LONG, model=slow)
    assert SARATHI.plan(view).limit == "slack"
    assert SARATHI.plan(view).budget == 3072  # 502 ms + 0.1 ms a token, within 900


def test_decodes_go_alone_while_slack_builds_up_for_a_chunk_that_costs_less():
    """A chunk costs 30 ms and 0.1 ms a token here: few tokens are dear."""
    dear = LinearModel(chunk_ms=30)
    few = [60.0] * 10  # 10 ms are left for tokens
    assert chunk_of(SARATHI, few, LONG, model=dear) == (0, "saving")
    assert chunk_of(Sarathi(saving=False), few, LONG, model=dear) == (54, "slack")
    assert chunk_of(SARATHI, [5000.0] * 10, LONG, model=dear)[0] > 3000
    assert chunk_of(SARATHI, [20.2] * 10, LONG, tbt_ms=24.0) == (
        0,
        "saving",
    )  # not even the smallest chunk fits


def test_nothing_is_saved_when_a_prompt_ends_now_or_slack_would_hardly_grow():
    dear, few = LinearModel(chunk_ms=30), [60.0] * 10
    assert chunk_of(SARATHI, few, [make_row("short", tokens=80), *LONG], model=dear)[0] >= 80
    assert chunk_of(SARATHI, few, LONG, model=dear, tbt_ms=22.0) == (54, "slack")  # decodes take 20 ms


def test_every_sixteenth_step_carries_a_chunk_whatever_it_costs():
    """A model that is wrong about the decodes would otherwise save for ever."""
    dear, few = LinearModel(chunk_ms=30), [60.0] * 10
    carried = [step for step in range(1, 65) if chunk_of(SARATHI, few, LONG, model=dear, step=step)[0]]
    assert carried == [16, 32, 48, 64]
    assert chunk_of(Sarathi(ageing=0), few, LONG, model=dear, step=32)[0] > 0


def test_gap_mode_gives_every_step_one_period_whatever_was_banked():
    for due in (-500.0, 5.0, 100.0, 5000.0):
        assert chunk_of(Sarathi(slo="gap", tiles=False), [due] * 10, LONG) == (790, "gap")


def test_the_plan_says_how_much_time_it_may_take():
    assert SARATHI.plan(make_view(DUE, LONG)).available_ns == 400 * NS_PER_MS
    assert Sarathi(slo="gap").plan(make_view(DUE, LONG)).available_ns == 100 * NS_PER_MS


# -- size: tiles and prompts -------------------------------------------------------------------------------------


def test_steps_end_on_tile_edges_decodes_included():
    for slack in (40.0, 77.0, 100.0, 133.0, 181.0):
        chunk, _ = chunk_of(SARATHI, [slack] * 10, LONG)
        assert chunk + 10 in TILES


def test_a_machine_with_tiles_is_not_asked_for_a_few_tokens_more():
    class Tiled(LinearModel):
        def predict_ns(self, shape):
            tiles = -(-(shape.decode_tokens + shape.prefill_tokens) // 256)
            return round((10 + 20 * tiles) * NS_PER_MS)

    assert chunk_of(SARATHI, [55.0] * 10, LONG, model=Tiled()) == (502, "slack")


def test_a_chunk_ends_with_the_work_there_is():
    short = [make_row("a", tokens=30), make_row("b", tokens=51)]
    assert chunk_of(SARATHI, DUE, short) == (81, "prompts")


def test_a_prompt_token_that_takes_longer_than_any_slack_is_computed_all_the_same():
    slow = LinearModel(token_ms=1000)
    assert chunk_of(SARATHI, [100.0], LONG, model=slow, previous_empty=True) == (15, "floor")
    assert chunk_of(SARATHI, (), LONG, model=slow) == (16, "idle cap")


def test_speculative_tokens_count_as_decode_tokens():
    assert chunk_of(EXACT, DUE, LONG, decode_tokens=30) == (594, "slack")


# -- limits ------------------------------------------------------------------------------------------------------


def test_the_engine_limits_a_step_decodes_included():
    assert chunk_of(SARATHI, DUE, LONG, max_tokens=512) == (502, "engine")


def test_the_users_budget_limits_a_step_decodes_included():
    assert chunk_of(Sarathi(token_budget=256), DUE, LONG) == (246, "engine")
    assert chunk_of(Sarathi(token_budget=9000), DUE, LONG, max_tokens=512) == (502, "engine")


@pytest.mark.parametrize("max_tokens", [10, 4])
def test_decodes_that_fill_the_step_leave_no_room(max_tokens: int):
    assert chunk_of(SARATHI, DUE, LONG, max_tokens=max_tokens) == (0, "decodes")


def test_a_cold_model_is_not_asked():
    cold = LinearModel(ready=False)
    plan = SARATHI.plan(make_view(DUE, LONG, model=cold))
    assert (plan.budget, plan.limit, plan.available_ns) == (138, "cold model", None)
    assert chunk_of(SARATHI, DUE, LONG, model=cold, max_tokens=100) == (90, "cold model")
    assert chunk_of(Sarathi(cold_chunk=7), DUE, LONG, model=cold) == (7, "cold model")


@pytest.mark.parametrize(("seen", "chunk"), [(0, 128), (60, 128), (100, 200), (250, 500)])
def test_a_model_is_not_asked_about_steps_far_beyond_those_it_has_seen(seen: int, chunk: int):
    young = LinearModel(seen_tokens=seen)
    assert chunk_of(SARATHI, DUE, LONG, model=young) == (chunk, "cold model")
    assert chunk_of(SARATHI, DUE, LONG, model=young, max_tokens=100) == (90, "engine")
    few = [make_row("short", tokens=90)]
    assert chunk_of(SARATHI, DUE, few, model=young) == (90, "prompts")
    assert chunk_of(Sarathi(cold_chunk=600), DUE, LONG, model=young) == (600, "cold model")
    assert chunk_of(SARATHI, (), LONG, model=young) == (chunk, "cold model")


def test_what_was_seen_does_not_bind_where_less_is_taken():
    seen = LinearModel(seen_tokens=5000)
    assert chunk_of(SARATHI, DUE, LONG, model=seen) == chunk_of(SARATHI, DUE, LONG)
    assert chunk_of(SARATHI, DUE, LONG, model=seen)[1] == "slack"


def test_an_idle_engine_takes_large_chunks_up_to_the_idle_cap_of_the_tightest_prompt():
    assert chunk_of(SARATHI, (), LONG) == (7168, "idle cap")  # 8 x 100 - 10 ms is 7900
    assert chunk_of(Sarathi(idle_cap=2), (), LONG) == (1792, "idle cap")
    tight = make_row("tight", tokens=20_000, slo=INTERACTIVE)
    assert chunk_of(SARATHI, (), [*LONG, tight]) == (3072, "idle cap")


def test_without_prompts_no_lever_is_touched():
    plan = SARATHI.plan(make_view(DUE))
    assert (plan.budget, plan.prefills, plan.waiting, plan.limit) == (None, None, None, "no prompts")


def test_prompts_that_only_wait_are_work_too():
    assert chunk_of(SARATHI, DUE, (), LONG, free_blocks=4000) == (758, "slack")


def test_a_queue_of_untracked_requests_is_left_to_the_engine():
    view = make_view(DUE)
    view.waiting_count = 3
    assert (SARATHI.plan(view).budget, SARATHI.plan(view).limit) == (None, "untracked")


# -- order -------------------------------------------------------------------------------------------------------

SOON = make_row("soon", arrived_ms=-10, due_ms=150)
LATER = make_row("later", arrived_ms=-900, due_ms=30_000)
SHORT = make_row("short", tokens=50, arrived_ms=-5, due_ms=300)
GONE = make_row("gone", tokens=3000, arrived_ms=-1e6, due_ms=-9e5)


def test_the_plan_orders_prompts_under_way_and_the_queue():
    plan = SARATHI.plan(make_view(DUE, [GONE, SOON], [GONE, LATER, SHORT]))
    assert names(plan.prefills) == ["soon", "gone"]
    assert names(plan.waiting) == ["short", "later", "gone"]


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        ("deadline", ["gone", "soon", "short", "later"]),
        ("shortest", ["short", "soon", "later", "gone"]),
        ("arrival", ["gone", "later", "soon", "short"]),
    ],
)
def test_other_orders_are_there_for_comparison(order: str, wanted: list[str]):
    plan = Sarathi(order=order).plan(make_view(DUE, (), [SOON, LATER, SHORT, GONE]))
    assert names(plan.waiting) == wanted


def test_now_and_then_the_one_that_waits_longest_beyond_its_allowance_goes_first():
    view = make_view(DUE, (), [SOON, GONE, LATER], step=SARATHI.ageing)
    assert names(SARATHI.plan(view).waiting)[0] == "gone"
    view.step += 1
    assert names(SARATHI.plan(view).waiting)[0] == "soon"


def test_what_has_to_look_back_on_much_is_more_work_than_its_tokens():
    deep = make_row("deep", tokens=41_000, computed=40_000, due_ms=-60_000)
    fresh = make_row("fresh", tokens=1200, due_ms=-60_000)
    assert names(SARATHI.plan(make_view(DUE, [deep, fresh])).prefills) == ["deep", "fresh"]
    steep = LinearModel(pair_ms=1e-4)
    assert names(SARATHI.plan(make_view(DUE, [deep, fresh], model=steep)).prefills) == ["fresh", "deep"]


def test_only_the_front_of_a_long_queue_is_put_in_order():
    rows = [make_row(str(i), tokens=10 + i, due_ms=1000) for i in range(3 * FRONT)]
    plan = SARATHI.plan(make_view(DUE, (), rows[::-1]))
    assert names(plan.waiting) == [str(i) for i in range(FRONT)]


def test_no_more_of_the_queue_is_put_in_order_than_could_fill_a_step():
    rows = [make_row(str(i), tokens=2000 + i, due_ms=1000) for i in range(20)]
    plan = SARATHI.plan(make_view(DUE, (), rows[::-1], max_tokens=8192))
    assert names(plan.waiting) == ["0", "1", "2", "3", "4"]


def test_a_prompt_that_fills_a_step_alone_goes_to_the_front_all_the_same():
    plan = SARATHI.plan(make_view(DUE, (), [GONE, SOON, LATER], max_tokens=512))
    assert names(plan.waiting) == ["soon"]


OVERDUE = make_row("overdue", tokens=800, arrived_ms=-5000, due_ms=-4500)


def test_nobody_under_way_keeps_the_furthest_overdue_from_its_turn():
    held = [make_row(str(i), computed=100, tokens=5000, due_ms=1000) for i in range(4)]
    assert SARATHI.plan(make_view(DUE, held, [OVERDUE], step=16, free_blocks=4000)).skip_prefills
    assert not SARATHI.plan(make_view(DUE, held, [OVERDUE], step=17, free_blocks=4000)).skip_prefills


def test_a_queue_of_one_has_no_order():
    assert SARATHI.plan(make_view(DUE, LONG, [SOON])).waiting is None


def test_prompts_are_counted_as_stepped_back_in_the_plan_in_which_they_become_late():
    late = make_row("late", due_ms=-10)
    view = make_view(DUE, [late, SOON], [make_row("late too", due_ms=-19)], previous_ms=-20)
    assert SARATHI.plan(view).relegated == 2
    view = make_view(DUE, [late, GONE, SOON], previous_ms=-10)  # late already in the plan before
    assert SARATHI.plan(view).relegated == 0


# -- overtaking and admission ------------------------------------------------------------------------------------


def test_a_more_urgent_prompt_overtakes_those_under_way():
    plan = SARATHI.plan(make_view(DUE, [LATER], [GONE, SOON]))
    assert plan.skip_prefills
    assert plan.reason
    assert names(plan.waiting) == ["soon", "gone"]


def test_the_chunk_is_sized_for_the_prompt_that_overtakes():
    model = LinearModel(pair_ms=0.0001)
    under_way = make_row("under way", tokens=90_000, computed=40_000, due_ms=50_000)
    alone, _ = chunk_of(EXACT, DUE, [under_way], model=model)
    assert alone < 30
    assert chunk_of(EXACT, DUE, [under_way], [SOON], model=model, free_blocks=4000)[0] > 300


def test_a_prompt_that_memory_keeps_out_sizes_no_step():
    model = LinearModel(pair_ms=0.0001)
    under_way = make_row("under way", tokens=90_000, computed=40_000, due_ms=50_000)
    alone = chunk_of(EXACT, DUE, [under_way], model=model, free_blocks=100)
    assert chunk_of(EXACT, DUE, [under_way], [SOON], model=model, free_blocks=100) == alone
    assert chunk_of(EXACT, DUE, (), [SOON], free_blocks=100) == (0, "memory")


@pytest.mark.parametrize(
    ("queue", "state"),
    [
        ([LATER], {}),
        ([GONE], {}),
        ([SHORT], {"previous_empty": True}),
        ([SHORT], {"max_requests": 11}),
        ([SHORT], {"free_blocks": 3}),  # 50 tokens need 4
    ],
    ids=["due later", "lost", "nothing ran before", "batch full", "no memory"],
)
def test_nobody_is_overtaken_by_one_who_is_not_more_urgent_or_cannot_start(
    queue: list[RequestRow], state: dict[str, object]
):
    plan = SARATHI.plan(make_view(DUE, [make_row("under way", due_ms=120)], queue, **state))
    assert not plan.skip_prefills
    assert not plan.reason


@pytest.mark.parametrize(("free", "gate"), [(1051, 14), (1052, None)])
def test_what_prompts_under_way_have_yet_to_take_is_theirs(free: int, gate: int | None):
    """Four times 2,900 tokens are 728 blocks; 242 those of a prompt of 3,872; 2 % of 4,096 stay free."""
    crowd = [make_row(str(i), tokens=3000, computed=100, due_ms=50_000 + i) for i in range(4)]
    plan = SARATHI.plan(make_view(DUE, crowd, [make_row("long", tokens=3872, due_ms=50)], free_blocks=free))
    assert (plan.skip_prefills, plan.max_running) == (gate is None, gate)


def test_any_number_of_prompts_may_be_under_way_that_memory_allows():
    crowd = [make_row(str(i), due_ms=50_000 + i) for i in range(40)]
    plan = SARATHI.plan(make_view(DUE, crowd, [SHORT], free_blocks=4000))
    assert (plan.skip_prefills, plan.max_running) == (True, None)


def test_a_queue_from_which_nobody_is_admitted_is_left_as_it_is():
    crowd = [make_row(str(i), tokens=3000, due_ms=50 + i) for i in range(4)]
    plan = SARATHI.plan(make_view(DUE, crowd, [GONE, LATER], free_blocks=800))
    assert (plan.max_running, plan.waiting) == (14, None)
    plan = SARATHI.plan(make_view(DUE, crowd, [GONE, LATER], free_blocks=800, previous_empty=True))
    assert (plan.max_running, names(plan.waiting)) == (None, ["later", "gone"])


@pytest.mark.parametrize(("free", "gate"), [(144, 10), (145, None)])
def test_admission_leaves_memory_for_the_decodes_to_grow(free: int, gate: int | None):
    """2 % of 4,096 blocks are 81.9, and 1,000 tokens take 63."""
    plan = SARATHI.plan(make_view(DUE, (), [SOON], free_blocks=free))
    assert plan.max_running == gate


@pytest.mark.parametrize(("free", "gate"), [(84, 10), (85, None)])
def test_cached_blocks_that_somebody_holds_need_no_memory(free: int, gate: int | None):
    """Three blocks to compute, 60 of 63 shared."""
    turn = make_row("turn", tokens=1000, computed=960, due_ms=100)
    plan = SARATHI.plan(make_view(DUE, (), [turn], free_blocks=free))
    assert plan.max_running == gate


def test_an_engine_without_decodes_admits_into_the_last_block():
    assert SARATHI.plan(make_view((), (), [SOON], free_blocks=63)).max_running is None


BACK = make_row("back", tokens=2000, arrived_ms=-900, due_ms=-500, preempted=True)


@pytest.mark.parametrize("slo", ["deadline", "gap"])
def test_who_lost_its_place_goes_before_all_others_and_nobody_is_admitted_with_it(slo: str):
    older = make_row("older", arrived_ms=-950, due_ms=-500, preempted=True)
    plan = Sarathi(slo=slo).plan(make_view(DUE, [LATER], [SOON, BACK, older]))
    assert names(plan.waiting)[:2] == ["older", "back"]
    assert plan.max_running == len(DUE) + 1 + 2
    assert plan.skip_prefills


def test_nobody_is_admitted_until_who_lost_its_place_is_through_its_prompt_again():
    plan = SARATHI.plan(make_view(DUE, [SOON, BACK], [SHORT]))
    assert names(plan.prefills) == ["back", "soon"]
    assert (plan.max_running, plan.waiting, plan.skip_prefills) == (len(DUE) + 2, None, False)
    assert SARATHI.plan(make_view(DUE, [SOON], [SHORT])).max_running is None


FORGOTTEN = make_row("forgotten", tokens=800, arrived_ms=-20_000, due_ms=-18_900)
"""Late by 17 times its allowance."""


@pytest.mark.parametrize(("free", "gate"), [(131, 10), (132, None)])
def test_the_furthest_overdue_gets_the_memory_it_needs_before_others_take_it(free: int, gate: int | None):
    """Its 800 tokens take 50 blocks, and 2 % of 4,096 are left: 131.9. The other one would fit into four."""
    assert SARATHI.plan(make_view(DUE, (), [SHORT, FORGOTTEN], free_blocks=free)).max_running == gate
    late = replace(FORGOTTEN, prefill_deadline_ns=FORGOTTEN.prefill_deadline_ns + 100 * NS_PER_MS)  # 15 times
    assert SARATHI.plan(make_view(DUE, (), [SHORT, late], free_blocks=free)).max_running is None


# -- settings ----------------------------------------------------------------------------------------------------


def test_it_serves_with_8192_tokens_unless_the_user_wants_fewer():
    assert SARATHI.max_batched_tokens(2048) == 8192
    assert Sarathi(token_budget=300).max_batched_tokens(2048) == 300


def test_the_meaning_of_an_slo_comes_from_the_settings():
    assert Sarathi.from_settings(Settings()) == Sarathi()
    assert Sarathi.from_settings(Settings(slo="gap")).slo == "gap"


def test_fields_are_set_by_name():
    given = {"stall_cap": 3, "idle_cap": 4.5, "cold_chunk": 9, "headroom": 0.5}
    policy = Sarathi.from_settings(Settings(policy=given))
    assert {name: getattr(policy, name) for name in given} == given


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stall_cap", 0.5), ("stall_cap", float("inf")), ("idle_cap", 0), ("idle_cap", float("nan")),
        ("cold_chunk", 0), ("headroom", 1.0), ("headroom", -0.1), ("token_budget", 0),
        ("slo", "both"), ("stall_cap", "much"),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_in_one_sentence(field: str, value: object):
    with pytest.raises(ConfigError) as caught:
        Sarathi.from_settings(Settings(policy={field: value}))
    sentence = str(caught.value)
    assert sentence.startswith(f"policy settings of 'sarathi': {field}: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
