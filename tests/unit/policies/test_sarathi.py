"""``sarathi``: how deadlines, the step-time model and its limits size a step, and who comes first.

The machine is linear and known (10 ms a step, 1 ms a decode, 0.1 ms a prompt token), so chunks are worked out by hand.
"""

from __future__ import annotations

import pytest

from sarathi_plugin.config import ConfigError, Settings
from sarathi_plugin.core import NS_PER_MS, RequestRow
from sarathi_plugin.policies.sarathi import Sarathi, by_urgency
from tests.unit.policies.views import INTERACTIVE, NOW, LinearModel, make_row, make_view

KNOBS = {"stall_cap": 2, "idle_cap": 8, "cold_chunk": 128, "efficiency": 0.25, "max_partial": 4}
"""What the chunks below are worked out for, whatever the defaults are."""

SARATHI = Sarathi(**KNOBS)
PROMPT = [make_row(tokens=20_000)]
DUE = [100.0] * 10
"""Ten decodes, which take 20 ms by themselves."""


def chunk_of(policy: Sarathi, *args: object, **kwargs: object) -> tuple[int, str]:
    """(prompt tokens, what bound them)."""
    view = make_view(*args, **kwargs)
    plan = policy.plan(view)
    return plan.budget - view.decode_tokens, plan.limit


# -- slack -------------------------------------------------------------------------------------------------------


def test_a_chunk_fills_the_slack_of_the_decodes():
    assert chunk_of(SARATHI, DUE, PROMPT) == (800, "slack")


def test_the_tightest_decode_decides():
    assert chunk_of(SARATHI, [*DUE, 61.0, 300.0], PROMPT) == (390, "slack")  # 61 - 22 ms


def test_steps_in_flight_take_their_share_of_the_slack():
    assert chunk_of(SARATHI, DUE, PROMPT, free_at_ms=30.0) == (500, "slack")


def test_the_margin_of_the_model_is_kept_free():
    assert chunk_of(SARATHI, DUE, PROMPT, model=LinearModel(margin=0.25)) == (600, "slack")  # 80 - 20 ms


def test_banked_slack_is_used_up_to_the_stall_cap():
    assert chunk_of(SARATHI, [150.0] * 10, PROMPT) == (1300, "slack")
    assert chunk_of(SARATHI, [5000.0] * 10, PROMPT) == (1800, "slack")  # 2 x 100 - 20 ms
    assert chunk_of(Sarathi(stall_cap=3), [5000.0] * 10, PROMPT) == (2800, "slack")


def test_a_chunk_on_a_long_context_is_smaller():
    model = LinearModel(pair_ms=0.0001)
    near, _ = chunk_of(SARATHI, DUE, [make_row(tokens=20_000, computed=0)], model=model)
    far, _ = chunk_of(SARATHI, DUE, [make_row(tokens=20_000, computed=4000)], model=model)
    # 0.1 n + 0.0001 n (context + n / 2) <= 80
    assert near == 612
    assert far == 157
    # The most urgent prompt is the one that gets the chunk.
    both = [make_row("late", computed=0, due_ms=900), make_row("soon", computed=4000, due_ms=100)]
    assert chunk_of(SARATHI, DUE, both, model=model) == (157, "slack")


def test_speculative_tokens_count_as_decode_tokens():
    assert chunk_of(SARATHI, DUE, PROMPT, decode_tokens=30) == (600, "slack")  # 100 - 40 ms


def test_the_plan_says_how_much_time_it_may_take():
    assert SARATHI.plan(make_view(DUE, PROMPT, free_at_ms=30.0)).available_ns == 70 * NS_PER_MS


# -- a decode that is late anyway --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("due_ms", "chunk"),
    [
        (-10.0, 700),  # overdue: its next miss counts at 90 ms
        (-150.0, 300),  # a period later: 50 ms
        (10.0, 900),  # late even in a step of its own: 110 ms
        (-90.0, 900),  # the same, overdue: 110 ms
    ],
)
def test_a_late_decode_gets_until_the_end_of_its_period(due_ms: float, chunk: int):
    assert chunk_of(SARATHI, [due_ms] * 10, PROMPT) == (chunk, "slack")


@pytest.mark.parametrize("due_ms", [20.0, -80.0, -980.0])
def test_a_decode_that_a_step_of_its_own_just_saves_is_saved(due_ms: float):
    assert chunk_of(SARATHI, [due_ms] * 10, PROMPT) == (0, "banking")


# -- chunks that are not worth it --------------------------------------------------------------------------------


def test_a_chunk_below_the_efficient_size_waits_while_decodes_bank_slack():
    # A quarter of the step is 6.67 ms: 67 tokens. 25 ms leave only 50.
    plan = SARATHI.plan(make_view([25.0] * 10, PROMPT))
    assert (plan.budget, plan.limit) == (10, "banking")
    assert (plan.skip_decodes, plan.skip_prefills) == (False, False)


def test_a_chunk_of_the_efficient_size_goes():
    assert chunk_of(SARATHI, [26.7] * 10, PROMPT) == (67, "slack")


def test_a_prompt_does_not_wait_when_decodes_cannot_bank():
    assert chunk_of(SARATHI, [24.0] * 10, PROMPT, tbt_ms=24.0) == (67, "floor")  # 20 ms > 0.8 x 24 ms


def test_a_prompt_does_not_wait_after_an_empty_step():
    assert chunk_of(SARATHI, [25.0] * 10, PROMPT, previous_empty=True) == (67, "floor")


def test_gap_mode_has_nothing_to_bank():
    assert chunk_of(Sarathi(slo="gap"), DUE, PROMPT, tbt_ms=26.0) == (67, "floor")


def test_less_efficiency_asked_makes_smaller_chunks_worth_it():
    assert chunk_of(Sarathi(efficiency=0.1), [25.0] * 10, PROMPT) == (50, "slack")
    assert chunk_of(Sarathi(efficiency=0.0), [20.1] * 10, PROMPT) == (1, "slack")


def test_a_prompt_token_that_takes_longer_than_any_slack_is_computed_all_the_same():
    model = LinearModel(token_ms=1000)
    plan = Sarathi(efficiency=0.0).plan(make_view((), PROMPT, model=model))
    assert (plan.budget, plan.limit) == (1, "floor")
    assert chunk_of(SARATHI, [100.0], PROMPT, model=model, tbt_ms=10.0) == (1, "floor")


# -- gap mode ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("due_ms", [-500.0, 5.0, 100.0, 5000.0])
def test_gap_mode_gives_every_step_one_period_whatever_was_banked(due_ms: float):
    assert chunk_of(Sarathi(slo="gap"), [due_ms] * 10, PROMPT) == (800, "slack")


# -- limits ------------------------------------------------------------------------------------------------------


def test_the_engine_limits_a_step_decodes_included():
    assert chunk_of(SARATHI, DUE, PROMPT, max_tokens=512) == (502, "engine")


def test_the_users_budget_limits_a_step_decodes_included():
    assert chunk_of(Sarathi(token_budget=256), DUE, PROMPT) == (246, "engine")
    assert chunk_of(Sarathi(token_budget=9000), DUE, PROMPT, max_tokens=512) == (502, "engine")


@pytest.mark.parametrize("max_tokens", [10, 4])
def test_decodes_that_fill_the_step_leave_no_room(max_tokens: int):
    assert chunk_of(SARATHI, DUE, PROMPT, max_tokens=max_tokens) == (0, "decodes")


def test_a_cold_model_is_not_asked():
    plan = SARATHI.plan(make_view(DUE, PROMPT, model=LinearModel(ready=False)))
    assert (plan.budget, plan.limit, plan.available_ns) == (138, "cold model", None)
    assert chunk_of(SARATHI, DUE, PROMPT, model=LinearModel(ready=False), max_tokens=100) == (
        90,
        "cold model",
    )
    assert chunk_of(Sarathi(cold_chunk=7), DUE, PROMPT, model=LinearModel(ready=False)) == (7, "cold model")


def test_an_idle_engine_takes_large_chunks_up_to_the_idle_cap():
    assert chunk_of(SARATHI, (), PROMPT) == (7900, "slack")  # 8 x 100 - 10 ms
    assert chunk_of(Sarathi(idle_cap=2), (), PROMPT) == (1900, "slack")


def test_the_idle_cap_follows_the_tightest_prompt():
    tight = make_row("tight", slo=INTERACTIVE)
    assert chunk_of(SARATHI, (), [*PROMPT, tight]) == (3900, "slack")
    assert chunk_of(SARATHI, (), (), [*PROMPT, tight]) == (3900, "slack")
    assert chunk_of(SARATHI, (), PROMPT, [tight]) == (7900, "slack")


def test_without_prompts_no_lever_is_touched():
    plan = SARATHI.plan(make_view(DUE))
    assert (plan.budget, plan.prefills, plan.waiting, plan.limit) == (None, None, None, "no prompts")


def test_prompts_that_only_wait_are_work_too():
    assert chunk_of(SARATHI, DUE, (), PROMPT) == (800, "slack")


# -- order -------------------------------------------------------------------------------------------------------

# Arrived and due, milliseconds from now; computed of 1000 tokens.
EARLY = make_row("early", arrived_ms=-900, due_ms=500)
SOON = make_row("soon", arrived_ms=-10, due_ms=50)
LATE_LONG = make_row("late, long", tokens=3000, arrived_ms=-2000, due_ms=-500)
LATE_SHORT = make_row("late, short", tokens=200, arrived_ms=-1000, due_ms=-10)
LATE_NEARLY_DONE = make_row("late, nearly done", tokens=3000, computed=2900, arrived_ms=-2000, due_ms=-900)
STARVED = make_row("starved", tokens=9000, arrived_ms=-1260, due_ms=-1010)  # 250 ms allowed, 1010 late
STARVED_LONGER = make_row("starved longer", tokens=9000, arrived_ms=-5000, due_ms=-4800)


def test_prompts_that_can_be_on_time_come_by_deadline_whenever_they_arrived():
    assert by_urgency([EARLY, SOON], NOW) == [SOON, EARLY]


def test_late_prompts_come_after_those_that_can_be_on_time_shortest_work_first():
    rows = [LATE_LONG, LATE_SHORT, EARLY, LATE_NEARLY_DONE]
    assert by_urgency(rows, NOW) == [EARLY, LATE_NEARLY_DONE, LATE_SHORT, LATE_LONG]


def test_nobody_starves_who_is_late_by_four_times_its_allowance():
    rows = [EARLY, STARVED, LATE_SHORT, STARVED_LONGER]
    assert by_urgency(rows, NOW) == [STARVED_LONGER, STARVED, EARLY, LATE_SHORT]
    patient = make_row("patient", tokens=9000, arrived_ms=-1250, due_ms=-1000)  # 250 ms allowed, 1000 late
    assert by_urgency([EARLY, patient], NOW) == [EARLY, patient]


def test_a_prompt_due_this_very_moment_can_be_on_time():
    assert by_urgency([LATE_NEARLY_DONE, make_row("now", due_ms=0)], NOW)[0].request_id == "now"


def test_equal_urgency_keeps_its_order():
    rows = [make_row(str(i), due_ms=5) for i in range(5)]
    assert by_urgency(rows, NOW) == rows


def test_the_plan_orders_prompts_under_way_and_the_queue():
    plan = SARATHI.plan(make_view(DUE, [LATE_LONG, SOON], [EARLY, LATE_SHORT, STARVED]))
    assert list(plan.prefills) == [SOON, LATE_LONG]
    assert list(plan.waiting) == [STARVED, EARLY, LATE_SHORT]


def test_a_queue_of_one_has_no_order():
    assert SARATHI.plan(make_view(DUE, PROMPT, [EARLY])).waiting is None


def test_the_queue_keeps_its_order_while_the_step_carries_no_prompt():
    plan = SARATHI.plan(make_view([25.0] * 10, PROMPT, [EARLY, SOON]))
    assert (plan.limit, plan.waiting) == ("banking", None)


def test_prompts_are_counted_as_stepped_back_in_the_plan_in_which_they_become_late():
    view = make_view(DUE, [LATE_SHORT, EARLY], [make_row("late too", due_ms=-19)], previous_ms=-20)
    assert SARATHI.plan(view).relegated == 2
    view = make_view(DUE, [LATE_SHORT, LATE_LONG, EARLY], previous_ms=-10)  # late already in the plan before
    assert SARATHI.plan(view).relegated == 0


# -- overtaking --------------------------------------------------------------------------------------------------


def test_a_more_urgent_prompt_overtakes_those_under_way():
    plan = SARATHI.plan(make_view(DUE, [EARLY], [LATE_SHORT, SOON]))
    assert plan.skip_prefills
    assert plan.reason
    assert plan.waiting[0] is SOON
    assert (plan.budget, plan.max_running) == (810, None)


def test_the_chunk_is_sized_for_the_prompt_that_overtakes():
    model = LinearModel(pair_ms=0.0001)
    under_way = make_row("under way", tokens=9000, computed=4000, due_ms=500)
    assert chunk_of(SARATHI, DUE, [under_way], model=model) == (157, "slack")
    assert chunk_of(SARATHI, DUE, [under_way], [SOON], model=model) == (612, "slack")


@pytest.mark.parametrize(
    ("queue", "state"),
    [
        ([EARLY], {}),
        ([LATE_SHORT], {}),
        ([SOON], {"previous_empty": True}),
        ([SOON], {"max_requests": 11}),
        ([SOON], {"free_blocks": 62}),  # 1000 tokens need 63
    ],
    ids=["due later", "late", "nothing ran before", "batch full", "no memory"],
)
def test_nobody_is_overtaken_by_one_who_is_not_more_urgent_or_cannot_start(
    queue: list[RequestRow], state: dict[str, object]
):
    plan = SARATHI.plan(make_view(DUE, [make_row("under way", due_ms=100)], queue, **state))
    assert not plan.skip_prefills
    assert not plan.reason


def test_the_last_free_block_and_place_let_it_overtake():
    view = make_view(DUE, [EARLY], [SOON], max_requests=12, free_blocks=63)
    assert SARATHI.plan(view).skip_prefills


def test_nobody_is_overtaken_while_the_step_carries_no_prompt():
    plan = SARATHI.plan(make_view([25.0] * 10, [EARLY], [SOON]))
    assert (plan.limit, plan.skip_prefills, plan.reason) == ("banking", False, "")


def test_at_the_limit_of_prompts_under_way_one_overtakes_only_if_its_step_finishes_it():
    crowd = [make_row(str(i), due_ms=500 + i) for i in range(4)]
    short, long = make_row("short", tokens=800, due_ms=50), make_row("long", tokens=801, due_ms=50)
    plan = SARATHI.plan(make_view(DUE, crowd, [short]))
    assert (plan.skip_prefills, plan.max_running) == (True, None)
    plan = SARATHI.plan(make_view(DUE, crowd, [long]))
    assert (plan.skip_prefills, plan.max_running) == (False, 14)


@pytest.mark.parametrize(("partial", "gate"), [(0, None), (3, None), (4, 14), (6, 16)])
def test_nobody_is_admitted_beyond_so_many_prompts_under_way(partial: int, gate: int | None):
    prefills = [make_row(str(i)) for i in range(partial)]
    assert SARATHI.plan(make_view(DUE, prefills, PROMPT)).max_running == gate


def test_the_gate_can_be_moved():
    assert Sarathi(max_partial=1).plan(make_view(DUE, PROMPT)).max_running == 11
    assert Sarathi(max_partial=2).plan(make_view(DUE, PROMPT)).max_running is None


# -- settings ----------------------------------------------------------------------------------------------------


def test_it_serves_with_8192_tokens_unless_the_user_wants_fewer():
    assert SARATHI.max_batched_tokens(2048) == 8192
    assert Sarathi(token_budget=300).max_batched_tokens(2048) == 300


def test_the_meaning_of_an_slo_comes_from_the_settings():
    assert Sarathi.from_settings(Settings()) == Sarathi()
    assert Sarathi.from_settings(Settings(slo="gap")).slo == "gap"


def test_fields_are_set_by_name():
    given = {"stall_cap": 3, "idle_cap": 4.5, "cold_chunk": 9, "efficiency": 0.5, "max_partial": 2}
    policy = Sarathi.from_settings(Settings(policy=given))
    assert {name: getattr(policy, name) for name in given} == given


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stall_cap", 0.5), ("stall_cap", float("inf")), ("idle_cap", 0), ("idle_cap", float("nan")),
        ("cold_chunk", 0), ("efficiency", 1.0), ("efficiency", -0.1), ("max_partial", 0), ("token_budget", 0),
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
