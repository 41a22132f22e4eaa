"""``niyama``: the published rules, on a machine of 10 ms a step, 1 ms a decode and 0.1 ms a prompt token."""

from __future__ import annotations

import pytest

from sarathi_plugin.config import ConfigError, Settings
from sarathi_plugin.policies.niyama import SCARCE_TOTAL, TOTALS, Niyama
from tests.unit.policies.views import LinearModel, make_row, make_view

NIYAMA = Niyama()
LONG = [make_row("long", tokens=20_000, due_ms=60_000)]
AMPLE = {"free_blocks": 4000}


def chunk_of(due_ms: list[float], **kwargs: object) -> tuple[int, str]:
    view = make_view(due_ms, LONG, **{**AMPLE, **kwargs})
    plan = NIYAMA.plan(view)
    return plan.budget - view.decode_tokens, plan.limit


@pytest.mark.parametrize(
    ("slack_ms", "total"),
    [
        (57.0, 256),  # 1.2 x (20 + 24.6) is 53.5
        (53.0, 128),
        (85.0, 512),  # 1.2 x (20 + 50.2) is 84.2
        (84.0, 256),
        (1000.0, 2552),
    ],
)
def test_the_largest_total_whose_guarded_prediction_fits_the_least_slack(slack_ms: float, total: int):
    assert chunk_of([slack_ms, *[900.0] * 9] if slack_ms < 900 else [slack_ms] * 10) == (total - 10, "slack")


@pytest.mark.parametrize("slack_ms", [0.0, -50.0, 5.0])
def test_without_slack_the_smallest_total_goes_on(slack_ms: float):
    assert chunk_of([slack_ms] * 10) == (TOTALS[0] - 10, "slack")


def test_without_decodes_the_largest_total_goes():
    assert chunk_of([]) == (TOTALS[-1], "no decodes")


def test_scarce_memory_keeps_steps_small():
    assert chunk_of([1000.0] * 10, free_blocks=1999) == (SCARCE_TOTAL - 10, "slack")  # 16 tokens a block
    assert chunk_of([1000.0] * 10, free_blocks=2000) == (TOTALS[-1] - 10, "slack")


def order(rows: list[object], policy: Niyama = NIYAMA, **kwargs: object) -> list[str]:
    return [row.request_id for row in policy.plan(make_view([500.0], (), rows, **kwargs)).waiting]


def test_a_thousand_tokens_count_for_eight_seconds_of_deadline():
    first = make_row("first", tokens=2000, due_ms=2_000)
    assert order([first, make_row("short", tokens=1000, due_ms=9_900)]) == ["short", "first"]
    assert order([first, make_row("later", tokens=1000, due_ms=10_100)]) == ["first", "later"]
    assert order([first, make_row("short", tokens=1000, due_ms=9_900)], Niyama(alpha=0)) == ["first", "short"]


def test_what_cannot_be_on_time_steps_back_unless_it_is_under_way():
    lost = make_row("lost", tokens=3000, due_ms=200)  # 0.3 s of work
    fine = make_row("fine", tokens=3000, due_ms=900)
    assert order([lost, fine]) == ["fine", "lost"]
    plan = NIYAMA.plan(make_view([500.0], [fine, lost]))
    assert [row.request_id for row in plan.prefills] == ["lost", "fine"]


def test_a_more_urgent_arrival_takes_the_next_chunk_from_one_under_way():
    under_way = make_row("under way", tokens=8000, computed=100, due_ms=9_000)
    urgent = make_row("urgent", tokens=500, due_ms=900)
    assert NIYAMA.plan(make_view([500.0], [under_way], [urgent])).skip_prefills
    assert not NIYAMA.plan(make_view([500.0], [under_way], [urgent], free_blocks=10)).skip_prefills
    assert not NIYAMA.plan(make_view([500.0], [urgent], [under_way])).skip_prefills


def test_the_context_that_counts_is_that_of_the_prompt_that_goes_first():
    deep = make_row("deep", tokens=8000, computed=7000, due_ms=9_000)
    urgent = make_row("urgent", tokens=1600, due_ms=900)
    model = LinearModel(token_ms=0.001, pair_ms=0.0001)
    alone = NIYAMA.plan(make_view([200.0], [deep], (), model=model, **AMPLE))
    overtaken = NIYAMA.plan(make_view([200.0], [deep], [urgent], model=model, **AMPLE))
    assert overtaken.skip_prefills
    assert alone.budget < overtaken.budget == 1536  # 1.2 x (11 + 1.5 + 118 ms) fits 200, 1.2 x 172 does not


def test_its_settings():
    assert Niyama.from_settings(Settings(scheduler="niyama", policy={"alpha": 0.001})) == Niyama(alpha=0.001)
    with pytest.raises(ConfigError):
        Niyama.from_settings(Settings(scheduler="niyama", policy={"alpha": -1}))
    assert NIYAMA.max_batched_tokens(100) >= TOTALS[-1]


def test_it_asks_the_model_it_is_given():
    slow = LinearModel(token_ms=1.0)
    view = make_view([200.0] * 10, LONG, model=slow, **AMPLE)
    assert NIYAMA.plan(view).budget == 128


def test_a_waiting_prompt_is_counted_as_relegated_in_the_plan_in_which_it_is_due():
    waiting = [make_row(str(due), due_ms=due) for due in (-30, -10, 0, 5)]
    plans = [NIYAMA.plan(make_view([100.0], (), waiting, previous_ms=previous)) for previous in (-20, -10)]
    assert [plan.relegated for plan in plans] == [2, 1]
