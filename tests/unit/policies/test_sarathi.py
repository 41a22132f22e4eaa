"""``sarathi``: how deadlines, the step-time model and its limits size a step, and who comes first.

The machine is linear and known (10 ms a step, 1 ms a decode, 0.1 ms a prompt token), so every chunk is worked out by hand.
"""

from __future__ import annotations

import pytest

from sarathi_plugin.config import ConfigError, Settings
from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.policies.sarathi import Sarathi, by_urgency
from tests.unit.policies.views import INTERACTIVE, LinearModel, make_row, make_view

SARATHI = Sarathi()
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


def test_the_prompt_due_first_comes_first_whenever_it_arrived():
    early = make_row("early", arrived_ms=-900, due_ms=500)
    late = make_row("late", arrived_ms=-10, due_ms=50)
    lost = make_row("lost", arrived_ms=-5000, due_ms=-3000)
    assert [row.request_id for row in by_urgency([early, late, lost])] == ["lost", "late", "early"]
    plan = SARATHI.plan(make_view(DUE, [early, late], [early, lost, late]))
    assert list(plan.prefills) == [late, early]
    assert list(plan.waiting) == [lost, late, early]


def test_equal_deadlines_keep_their_order():
    rows = [make_row(str(i), due_ms=5) for i in range(5)]
    assert by_urgency(rows) == rows


def test_the_queue_is_not_read_when_nobody_can_be_admitted_or_chosen():
    queue = [make_row("a", due_ms=5), make_row("b", due_ms=1)]
    assert SARATHI.plan(make_view([25.0] * 10, PROMPT, queue)).waiting is None  # banking
    assert SARATHI.plan(make_view(DUE, PROMPT, queue[:1])).waiting is None


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
    assert Sarathi.from_settings(Settings()) == SARATHI
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
