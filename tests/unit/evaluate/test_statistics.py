"""Intervals cover what they should, and a difference is claimed only when the data carry it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sarathi_plugin.evaluate.statistics import MANY, block_bootstrap, blocks_of, mean_interval, ratio_interval


def test_a_known_interval():
    found = mean_interval([1.0, 2.0, 3.0])
    assert found is not None
    assert found.value == 2
    assert found.high - found.value == pytest.approx(4.303 / math.sqrt(3))
    assert found.value - found.low == pytest.approx(4.303 / math.sqrt(3))


def test_nothing_has_no_interval_and_one_value_an_unbounded_one():
    assert mean_interval([]) is None
    assert ratio_interval([]) is None
    one, ratio = mean_interval([5.0]), ratio_interval([math.log(3)])
    assert one is not None
    assert (one.low, one.high) == (-math.inf, math.inf)
    assert not one.excludes(0)
    assert ratio is not None
    assert (ratio.low, ratio.high) == (0, math.inf)
    assert not ratio.excludes(1)


def test_runs_that_agree_by_chance_know_no_better_than_their_resolution():
    assert mean_interval([0.01, 0.01, 0.01], floor=0.02).excludes(0) is False
    assert mean_interval([0.01, 0.01, 0.01]).excludes(0) is True
    assert ratio_interval([math.log(1.01)] * 4, floor=0.02).excludes(1) is False
    assert ratio_interval([math.log(1.05)] * 4, floor=0.02).excludes(1) is True


@pytest.mark.parametrize("n", [3, 5, MANY, 40])
def test_the_interval_holds_the_truth_as_often_as_it_says(n: int):
    rng = np.random.default_rng(n)
    held = sum(not mean_interval(rng.normal(0, 1, n).tolist(), seed=i).excludes(0) for i in range(600))
    assert 0.92 <= held / 600 <= 0.98


@pytest.mark.parametrize("n", [5, 30])
def test_a_difference_of_three_deviations_is_found(n: int):
    rng = np.random.default_rng(n)
    found = sum(mean_interval(rng.normal(3, 1, n).tolist(), seed=i).excludes(0) for i in range(100))
    assert found >= 95


def test_neighbours_are_resampled_together():
    """A run of failures in a row is one event: an interval that ignores that is far too narrow."""
    values = np.r_[np.zeros(180), np.ones(20)]
    found = block_bootstrap(200, lambda indices: float(values[indices].mean()), seed=1)
    apart = 1.96 * math.sqrt(0.1 * 0.9 / 200)
    assert blocks_of(200) == 14
    assert found is not None
    assert found.value == pytest.approx(0.1)
    assert found.high - found.low > 1.5 * 2 * apart


def test_a_statistic_without_a_value_has_no_interval():
    assert block_bootstrap(0, lambda _: 1.0) is None
    assert block_bootstrap(5, lambda _: None) is None
