"""Deadlines, fluidity-index, fluid token rate and prefill curve against figures worked out elsewhere."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import pytest

from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.deadlines import (
    DeadlineCount,
    DeadlineState,
    PrefillCurve,
    count_deadlines,
    fluid_token_rate,
    inter_token_times,
    overdue_periods,
    smallest_fluid_tbt_ns,
    token_fraction,
)
from tests.unit.deadline_vectors import VECTORS, Vector

RESOLUTION_NS = 100_000
each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)


def ms(*values: float) -> list[int]:
    return [round(value * NS_PER_MS) for value in values]


def test_there_are_26_vectors_and_no_two_alike():
    assert len(VECTORS) == len({vector.name for vector in VECTORS}) == 26


@each_vector
def test_batch_form_gives_the_reference_counts(vector: Vector):
    count = count_deadlines(
        ms(*vector.times_ms), *ms(vector.first_ms, vector.tbt_ms), judge_first=vector.judge_first
    )
    assert (count.missed, count.total) == (vector.missed, vector.total)
    expected = 1 - vector.missed / vector.total if vector.total else 1
    assert count.fluidity_index == pytest.approx(expected, abs=1e-12)


@each_vector
@pytest.mark.parametrize("arrival_ns", [0, 7_123_456_789])
def test_live_form_gives_the_reference_counts_on_absolute_times(vector: Vector, arrival_ns: int):
    arrivals = [arrival_ns + t for t in accumulate(ms(*vector.times_ms))]
    first_ns, tbt_ns = ms(vector.first_ms, vector.tbt_ms)
    if vector.judge_first:
        state = DeadlineState.from_arrival(arrival_ns, first_ns, tbt_ns)
    else:
        state = DeadlineState.after_first_token(arrivals.pop(0), tbt_ns)
    late = sum(state.emit(now) for now in arrivals)
    assert (state.missed, state.met + state.missed) == (vector.missed, vector.total)
    assert late == vector.missed


@each_vector
def test_token_fraction_gives_the_share_of_tokens_on_time(vector: Vector):
    times, (first_ns, tbt_ns) = ms(*vector.times_ms), ms(vector.first_ms, vector.tbt_ms)
    found = token_fraction(times, first_ns, tbt_ns, judge_first=vector.judge_first)
    assert found == pytest.approx(vector.on_time, abs=1e-12)


def test_units_do_not_matter():
    for vector in VECTORS:
        in_ms = count_deadlines(
            vector.times_ms, vector.first_ms, vector.tbt_ms, judge_first=vector.judge_first
        )
        assert (in_ms.missed, in_ms.total) == (vector.missed, vector.total)


def test_integers_count_the_miss_that_float_seconds_lose():
    assert 0.5 // 0.05 == 9
    assert count_deadlines(ms(100, 550), *ms(100, 50)) == DeadlineCount(1, 11)
    assert count_deadlines(ms(100, 500), *ms(100, 50)).missed == 10


@pytest.mark.parametrize(
    ("late_ns", "periods"),
    [(-5, 0), (0, 0), (1, 1), (99, 1), (100, 2), (199, 2), (200, 3), (1_000_000, 10_001)],
)
def test_overdue_periods_at_their_borders(late_ns: int, periods: int):
    assert overdue_periods(1000 + late_ns, 1000, 100) == periods


@pytest.mark.parametrize(("after_ns", "misses"), [(0, 0), (1, 1), (49, 1), (50, 2), (500, 11)])
def test_giving_up_counts_what_was_missed_and_earns_nothing(after_ns: int, misses: int):
    state = DeadlineState(1000, 50, met=3, missed=1)
    assert state.give_up(1000 + after_ns) == misses
    assert (state.met, state.missed) == (3, 1 + misses)


def test_giving_up_equals_the_misses_of_a_token_at_the_same_moment():
    for now in range(950, 1300):
        token, end = DeadlineState(1000, 50), DeadlineState(1000, 50)
        assert token.emit(now) == end.give_up(now)
        assert end.met == 0


def test_a_bundle_is_late_once_and_its_other_tokens_are_on_time():
    state = DeadlineState(1000, 100)
    assert state.emit(1250, tokens=4) == 3
    assert (state.met, state.missed, state.next_deadline_ns) == (3, 3, 1250 + 400)


def test_an_early_bundle_banks_a_period_per_token():
    state = DeadlineState(1000, 100)
    assert state.emit(10, tokens=4) == 0
    assert (state.met, state.missed, state.next_deadline_ns) == (4, 0, 1400)


def test_deadlines_of_several_requests_add_up_by_deadline():
    by_name = {vector.name: vector for vector in VECTORS}
    names = (
        "first-token-slack-absorbs-a-stall", "gap-between-one-and-two-periods", "gap-of-exactly-two-periods",
        "slack-is-lost-by-a-miss", "slack-is-earned-again",
    )  # fmt: skip
    counts = [
        count_deadlines(ms(*by_name[name].times_ms), *ms(by_name[name].first_ms, by_name[name].tbt_ms))
        for name in names
    ]
    total = DeadlineCount(sum(c.met for c in counts), sum(c.missed for c in counts))
    assert (total.missed, total.total) == (7, 23)
    assert total.fluidity_index == pytest.approx(0.695652, abs=1e-6)
    mean = sum(c.fluidity_index for c in counts) / len(counts)
    assert mean == pytest.approx(0.709524, abs=1e-6)


def test_inter_token_times_start_at_the_arrival():
    assert inter_token_times(100, [150, 150, 400]) == [50, 0, 250]
    assert inter_token_times(100, []) == []


STEADY_30 = [30] * 100
STALL_LAST = [*[20] * 99, 500]
STALL_FIRST = [500, *[20] * 99]
BUNDLES = [0, 0, 0, *[100, 0, 0, 0] * 25]


CASES = [
    # (gaps, the minimum worked out by hand, what Etalon finds or None). n gaps of 20 ms may have n // 9 misses: with a
    # stall of 500 ms after them D_d > (500 + 20 n) / (n + 1 + n // 9), before them D_d > 500 / (1 + n // 9).
    ([30] * 100, 30, 30.027),
    ([30] * 50, 30, 30.027),
    ([20] * 50, 20, 20.079),
    ([*[20] * 99, 500], 2480 / 111, 22.353),
    ([*[20] * 49, 500], 1480 / 55, 27.185),
    ([500, *[20] * 99], 500 / 12, 41.680),
    ([500, *[20] * 49], 500 / 6, 83.460),
    ([0, 0, 0, *[100, 0, 0, 0] * 25], 25, None),
]


@pytest.mark.parametrize(("gaps_ms", "needed_ms", "etalon_ms"), CASES)
def test_smallest_fluid_tbt_is_the_minimum(gaps_ms: list[int], needed_ms: float, etalon_ms: float | None):
    exact = smallest_fluid_tbt_ns(ms(*gaps_ms), resolution_ns=1)
    assert exact == pytest.approx(needed_ms * NS_PER_MS, abs=2)
    times = [0, *ms(*gaps_ms)]
    assert count_deadlines(times, 0, exact, judge_first=False).fluidity_index >= 0.9
    assert count_deadlines(times, 0, exact - 1, judge_first=False).fluidity_index < 0.9
    if etalon_ms is not None:  # its bisection leaves out 0.1 ms beside each middle and stops at 0.1 ms
        assert 0 <= etalon_ms - exact / NS_PER_MS <= 0.3


@pytest.mark.parametrize(("gaps_ms", "needed_ms", "etalon_ms"), CASES)
def test_smallest_fluid_tbt_holds_within_the_resolution(
    gaps_ms: list[int], needed_ms: float, etalon_ms: float | None
):
    del etalon_ms
    found = smallest_fluid_tbt_ns(ms(*gaps_ms))
    assert 0 <= found - needed_ms * NS_PER_MS <= RESOLUTION_NS
    assert count_deadlines([0, *ms(*gaps_ms)], 0, found, judge_first=False).fluidity_index >= 0.9


def test_no_gap_needs_no_target():
    assert smallest_fluid_tbt_ns([]) is None
    assert fluid_token_rate([]) is None
    assert fluid_token_rate([[], []]) is None


def test_a_threshold_of_one_allows_no_miss():
    assert smallest_fluid_tbt_ns(ms(*[20] * 50, 60), threshold=1.0) < ms(25)[0]
    needed = smallest_fluid_tbt_ns(ms(60, *[20] * 50), threshold=1.0, resolution_ns=1)
    assert needed == ms(60)[0]


def test_fluid_token_rate_is_what_99_percent_can_be_promised():
    requests = [ms(*[20] * 50), ms(*[30] * 50), ms(*[20] * 49, 500), ms(500, *[20] * 49)]
    # A promise to 99 of 100 of four requests is a promise to all: the worst of them needs 83.33 ms.
    assert fluid_token_rate(requests) == pytest.approx(1 / 0.083334, rel=0.005)
    assert fluid_token_rate(requests, share=0.75) == pytest.approx(1 / 0.030, rel=0.005)
    assert fluid_token_rate(requests, share=0.5) == pytest.approx(1 / 0.027, rel=0.005)


def test_fluid_token_rate_lets_one_of_a_hundred_off():
    good, bad = ms(*[20] * 20), ms(*[200] * 20)
    assert fluid_token_rate([good] * 99 + [bad]) == pytest.approx(50, rel=0.01)
    assert fluid_token_rate([good] * 98 + [bad] * 2) == pytest.approx(5, rel=0.01)


CURVE = PrefillCurve(0.02, 6e-5, 4e-9)


@pytest.mark.parametrize(
    ("tokens", "ns"),
    [(0, 20_000_000), (100, 26_040_000), (1000, 84_000_000), (3000, 236_000_000), (10_000, 1_020_000_000)],
)
def test_prefill_curve_is_the_quadratic_in_nanoseconds(tokens: int, ns: int):
    assert CURVE.prefill_ns(tokens) == ns


def test_prefill_curve_digest_names_the_coefficients_and_nothing_else():
    assert CURVE.digest == PrefillCurve(0.02, 6e-5, 4e-9, source="elsewhere").digest
    assert len(CURVE.digest) == 12
    assert set(CURVE.digest) <= set("0123456789abcdef")
    changed = [replace(CURVE, c0_s=0.021), replace(CURVE, c1_s=6.1e-5), replace(CURVE, c2_s=4.1e-9)]
    assert len({CURVE.digest, *(curve.digest for curve in changed)}) == 4


def test_prefill_curve_digest_does_not_change_between_versions():
    """Recordings of different versions are compared by it."""
    assert CURVE.digest == "7d4226d85267"


@pytest.mark.parametrize("coefficients", [(-1e-9, 0, 0), (0, -1e-9, 0), (0, 0, -1e-12)])
def test_prefill_curve_refuses_a_negative_coefficient(coefficients: tuple[float, float, float]):
    with pytest.raises(ValueError, match="zero or more"):
        PrefillCurve(*coefficients)
