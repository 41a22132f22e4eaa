"""``fair-batching``: the published groups, on a machine of 10 ms a step, 1 ms a decode and 0.1 ms a prompt token."""

from __future__ import annotations

import pytest

from sarathi_plugin.policies.fair_batching import FairBatching
from tests.unit.policies.views import LinearModel, make_row, make_view

FAIR = FairBatching()
LONG = [make_row("long", tokens=20_000, due_ms=60_000)]


def fill(
    due_ms: list[float], rows: list[object] = LONG, **kwargs: object
) -> tuple[int, tuple[int, ...], str]:
    """(prompt tokens, decodes left out, limit)."""
    view = make_view(due_ms, rows, **kwargs)
    plan = FAIR.plan(view)
    return plan.budget - view.decodes + len(plan.skip_some), plan.skip_some, plan.limit


@pytest.mark.parametrize(
    ("slack_ms", "tokens"),
    [
        (200.0, 1800),  # 10 + 10 x 1 ms leave 180
        (150.0, 1300),
        (50.0, 800),  # no less than a TPOT target of 100 ms
        (-500.0, 800),
    ],
)
def test_a_step_takes_the_least_slack_or_the_least_target(slack_ms: float, tokens: int):
    assert fill([slack_ms, *[210.0] * 9] if slack_ms > 100 else [slack_ms, *[110.0] * 9])[:2] == (tokens, ())


def test_the_least_target_of_all_counts_and_steps_in_flight_do():
    assert fill([20.0] * 10, tbt_ms=50.0)[0] == 300
    assert fill([200.0] * 10, free_at_ms=60.0)[0] == 1200


def test_the_margin_of_the_model_is_kept():
    assert fill([200.0] * 10, model=LinearModel(margin=0.25))[0] == 1400  # 1.25 x 160 ms


def test_a_decode_ahead_of_its_schedule_gives_way_to_prompts():
    # Urgent is below 150 + 100 ms; the two others cost two prompt tokens' worth of 1 ms each.
    tokens, skipped, _ = fill([900.0, 150.0, 249.0, 250.0])
    assert (tokens, set(skipped)) == (1380, {0, 3})


def test_what_prompts_leave_goes_to_the_others_by_slack():
    row = [make_row(tokens=1000)]  # 10 + 100 + 2 urgent are 112 ms of 115: three more fit
    assert fill([700.0, 115.0, 114.5 + 100, 600.0, 500.0, 900.0], row)[:2] == (1000, (5,))
    assert FAIR.plan(make_view([700.0, 115.0, 900.0], row)).reason == ""


def test_prompts_that_memory_cannot_take_hold_nobody_back():
    view = make_view([900.0, 150.0], (), [make_row(tokens=160)], free_blocks=9)
    assert FAIR.plan(view).skip_some == ()
    assert FAIR.plan(
        make_view([900.0, 150.0], (), [make_row(tokens=16_000)], free_blocks=1000)
    ).skip_some == (0,)


def test_after_an_empty_step_everybody_runs():
    assert fill([900.0, 150.0], previous_empty=True)[1] == ()


def test_without_decodes_the_engine_is_the_limit():
    assert fill([], max_tokens=4096) == (4096, (), "engine")
    assert FAIR.max_batched_tokens(100) == 8192


def test_prompts_go_by_slack_and_one_due_sooner_takes_the_next_chunk():
    late, soon = make_row("late", computed=10, due_ms=900), make_row("soon", due_ms=300)
    plan = FAIR.plan(make_view([150.0], [late], [make_row("last", due_ms=950), soon]))
    assert [row.request_id for row in plan.waiting] == ["soon", "last"]
    assert plan.skip_prefills
    assert plan.reason
    assert not FAIR.plan(make_view([150.0], [soon], [late])).skip_prefills
    assert [row.request_id for row in FAIR.plan(make_view([150.0], [late, soon])).prefills] == [
        "soon",
        "late",
    ]


def test_decodes_that_fill_the_time_alone_leave_nothing_to_prompts():
    plan = FAIR.plan(make_view([50.0] * 95, LONG))
    assert (plan.budget, plan.skip_some) == (95, ())
