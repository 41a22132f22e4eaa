"""Etalon's own example series come out as Etalon computes them (project-etalon/etalon at d5f18de)."""

from __future__ import annotations

import pytest

from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.search.etalon import acceptance_curve, token_rates

SERIES = [[20] * 50, [30] * 50, [*[20] * 49, 500], [500, *[20] * 49]]


def ns(series: list[list[int]]) -> list[list[int]]:
    return [[gap * NS_PER_MS for gap in gaps] for gaps in series]


def test_the_three_token_rates():
    found = token_rates(ns(SERIES))
    assert found.by_tpot == pytest.approx(36.6300, abs=1e-4)
    assert found.by_tbt == pytest.approx(28.8184, abs=1e-4)
    # Etalon's bisection ends up to 0.2 ms above the smallest D_d: its rate, 12.2164, is a little lower.
    assert found.fluid == pytest.approx(12.2164, rel=0.003)
    assert found.fluid >= 12.2164


def test_the_p99_miss_rates():
    curve = dict(acceptance_curve(ns(SERIES), (20, 25, 30, 50, 100)))
    etalon = {20: 0.97986, 25: 0.97838, 30: 0.23877, 50: 0.15052, 100: 0.07321}
    assert 1 - curve[30] == pytest.approx(etalon[30], abs=1e-5)
    for target in (20, 25):
        assert 1 - curve[target] == pytest.approx(etalon[target], abs=4e-4)
    # In float seconds 0.5 // 0.05 is 9: the stall of 500 ms counts one miss less. 49 tokens are on time, and of four
    # requests P99 is 0.97 of the worst and 0.03 of the next, which misses nothing.
    for target, missed in ((50, 10), (100, 5)):
        assert etalon[target] == pytest.approx(0.97 * (missed - 1) / (missed - 1 + 49), abs=1e-5)
        assert 1 - curve[target] == pytest.approx(0.97 * missed / (missed + 49), abs=1e-5)


def test_a_curve_never_falls_and_ends_where_nothing_is_missed():
    curve = acceptance_curve(ns(SERIES), (1, 5, 10, 20, 40, 80, 160, 320, 640))
    values = [value for _, value in curve]
    assert values == sorted(values)
    assert values[-1] == 1.0
    assert values[0] < 0.2


def test_a_stall_is_seen_by_the_fluid_rate_and_not_by_tpot():
    steady, stalls = [[20] * 400] * 100, [[20] * 200 + [4000] + [20] * 199] * 100
    before, after = token_rates(ns(steady)), token_rates(ns(stalls))
    assert after.by_tpot == pytest.approx(before.by_tpot, rel=0.4)
    assert after.by_tbt == before.by_tbt  # one gap in 400
    assert after.fluid < 0.7 * before.fluid


def test_nothing_to_judge():
    assert token_rates([]) == (None, None, None)
    assert token_rates([[], []]) == (None, None, None)
    assert acceptance_curve([]) == []
    assert acceptance_curve([[]], (10,)) == [(10.0, 1.0)]
