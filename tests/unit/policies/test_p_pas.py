"""``p-pas``: when there is pressure, and what follows."""

from __future__ import annotations

import pytest

from sarathi_plugin.config import ConfigError, Settings
from sarathi_plugin.policies.p_pas import PrefillPressure
from tests.unit.policies.views import make_row, make_view

P_PAS = PrefillPressure()
PLUS = PrefillPressure(large_prompt=65_536)


def rows(count: int) -> list[object]:
    return [make_row(f"p{i}", tokens=20_000) for i in range(count)]


@pytest.mark.parametrize(
    ("decodes", "under_way", "waiting", "pressed"),
    [(1, 2, 0, True), (1, 1, 1, True), (1, 0, 2, True), (1, 1, 0, False), (1, 0, 1, False), (0, 2, 2, False)],
)
def test_two_unfinished_prompts_beside_a_decode_are_pressure(
    decodes: int, under_way: int, waiting: int, pressed: bool
):
    plan = P_PAS.plan(make_view([50.0] * decodes, rows(under_way), rows(waiting)))
    assert (plan.budget, plan.limit) == ((decodes + 2048, "pressure") if pressed else (None, "engine"))


def test_the_small_budget_is_for_prompts_alone():
    assert PrefillPressure(cap=256).plan(make_view([50.0] * 100, rows(2))).budget == 356


def test_order_and_admission_are_those_of_the_engine():
    plan = P_PAS.plan(make_view([50.0], rows(2), rows(2)))
    assert (plan.prefills, plan.waiting, plan.max_running, plan.skip_prefills) == (None, None, None, False)


@pytest.mark.parametrize(
    ("left", "decodes", "pressed"), [(65_536, 2, True), (65_535, 2, False), (65_536, 1, False)]
)
def test_a_single_large_prompt_is_pressure_where_asked_for(left: int, decodes: int, pressed: bool):
    view = make_view([50.0] * decodes, [make_row(tokens=left + 7, computed=7)])
    assert (PLUS.plan(view).budget is not None) == pressed
    assert P_PAS.plan(view).budget is None
    assert PLUS.plan(make_view([50.0] * 3, (), [make_row(tokens=100_000)])).budget is None


def test_its_settings():
    assert P_PAS.max_batched_tokens(4096) == 16_384
    assert PrefillPressure.from_settings(Settings(scheduler="p-pas", policy={"cap": 512})).cap == 512
    with pytest.raises(ConfigError):
        PrefillPressure.from_settings(Settings(scheduler="p-pas", policy={"cap": 0}))
