"""Repeats: mean, interval, what broke, and the sequence that saves runs."""

from __future__ import annotations

import math

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.search.capacity import Capacity, Verdict
from sarathi_plugin.search.capacity_command import capacity_lines, lines_of, result_of
from sarathi_plugin.search.repeats import Repeated, in_sequence, kind_of, mean_interval, one_repeat


def below(threshold: float, rate: float) -> Verdict:
    return Verdict(
        rate, rate <= threshold, 1.0, 0, "" if rate <= threshold else "batch: 91.0% fluid, first tokens late"
    )


def capacity(rate: float, reason: str = "standard: 98.0% fluid, first tokens late") -> Capacity:
    return Capacity(rate, (Verdict(rate, True, 1, 0), Verdict(rate * 1.03, False, 0.9, None, reason)))


def test_the_interval_is_students():
    # Three values 1, 2, 3: standard error 1 / sqrt 3, t 4.303.
    found = mean_interval([1.0, 2.0, 3.0])
    assert found is not None
    assert found.mean == 2
    assert found.low == pytest.approx(2 - 4.303 / math.sqrt(3))
    assert found.high == pytest.approx(2 + 4.303 / math.sqrt(3))
    assert mean_interval([2.0]) is None
    wide = mean_interval([0.0, 1.0] * 50)
    assert wide is not None
    assert wide.high - wide.low == pytest.approx(2 * 2.042 * 0.50252 / 10, rel=1e-3)


def test_repeats_are_summed_up():
    found = Repeated((capacity(2.0), capacity(3.0), capacity(4.0, "median delay 2.5 s")), 0.03)
    assert found.rate == 3
    interval = found.interval
    assert interval is not None
    assert interval.low == pytest.approx((3 - 4.303 / math.sqrt(3)) * 1.015)
    assert interval.high == pytest.approx((3 + 4.303 / math.sqrt(3)) * 1.015)
    assert found.limits == [("standard: first tokens late", 2), ("median delay", 1)]
    assert not found.open_ended
    data = found.as_data()
    assert data["by_repeat"] == [2, 3, 4]
    assert data["runs"][2][1]["reason"] == "median delay 2.5 s"


def test_an_interval_is_no_narrower_than_the_search_was_fine():
    same = Repeated((capacity(2.0), capacity(2.0), capacity(2.0)), 0.1).interval
    assert same is not None
    assert (same.low, same.high) == (2.0, pytest.approx(2.2))


def test_an_interval_does_not_go_below_nothing():
    interval = Repeated((capacity(0.1), capacity(5.0)), 0.03).interval
    assert interval is not None
    assert interval.low == 0


def test_a_search_that_never_failed_is_open_ended():
    found = Repeated((capacity(2.0), Capacity(64.0, (Verdict(64, True, 1, 0),))), 0.03)
    assert found.open_ended


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("standard: 98.2% fluid, first tokens late", "standard: first tokens late"),
        ("batch: at most 80.0% fluid, later tokens late", "batch: later tokens late"),
        ("median delay 2.5 s", "median delay"),
        ("P99 TBT 0.5 s, more than 0.1 s", "P99 TBT"),
        ("P99 TBT more than 0.1: 12 values beyond it, 10 allowed", "P99 TBT"),
        ("no request was scheduled", "no request was scheduled"),
        ("P99 miss rate: too many requests failed", "P99 miss rate: too many requests failed"),
    ],
)
def test_reasons_without_their_figures(reason: str, kind: str):
    assert kind_of(reason) == kind


def test_later_repeats_begin_where_the_first_ones_ended():
    asked: list[tuple[int, float]] = []

    def judge(rate: float, seed: int) -> Verdict:
        asked.append((seed, rate))
        return below(40 + seed, rate)

    noted: list[int] = []
    found = in_sequence(judge, [0, 1, 2], start=1, resolution=0.02, note=lambda seed, _: noted.append(seed))
    runs = [sum(seed == which for seed, _ in asked) for which in range(3)]
    assert runs[0] > runs[1] >= runs[2] - 1
    assert [round(rate) for rate in found.rates] == [40, 41, 42] or found.rate == pytest.approx(41, rel=0.02)
    assert found.limits == [("batch: first tokens late", 3)]
    assert noted == [0, 1, 2]


def test_nothing_to_repeat_is_refused():
    with pytest.raises(ConfigError, match="at least one repeat"):
        in_sequence(lambda rate, _: below(1, rate), [], start=1, resolution=0.1)
    with pytest.raises(ConfigError, match="span of at least 1"):
        one_repeat(lambda rate: below(1, rate), start=1, resolution=0.1, step=1.3, span=0.5)


def test_a_start_that_is_too_high_is_not_a_capacity_of_nothing():
    def nothing(seed: float) -> Capacity:
        return one_repeat(lambda rate: below(0.01, rate), start=100 + seed, resolution=0.1, step=1.3)

    none = Repeated((nothing(0), nothing(64)), 0.1)
    assert none.capacities[0].text == "below 1.56 requests/s, the lowest rate tried"
    assert none.below == 100 / 64
    shown = capacity_lines(result_of("arm", none, {}))
    assert shown == [
        "arm: below 1.56 requests/s, the lowest rate tried (give a lower --start); limit: batch: first tokens late "
        "(2 of 2)"
    ]
    some = Repeated((nothing(0), capacity(2.0)), 0.1)
    assert some.below is None
    assert capacity_lines(result_of("arm", some, {}))[1] == (
        "  in 1 of 2 repeats no rate passed, which counts as 0: give a lower --start"
    )
    assert Repeated((capacity(2.0),), 0.1).as_data()["below"] is None


@pytest.mark.parametrize(("seeds", "said"), [([0, 1, 2], True), ([0], False)])
@pytest.mark.parametrize("varies", [True, False])
def test_repeats_of_one_traffic_are_called_so(seeds: list[int], said: bool, varies: bool):
    report = {"results": [], "seeds": seeds, "other_traffic_by_seed": varies}
    assert bool(lines_of(report)) is (said and not varies)
