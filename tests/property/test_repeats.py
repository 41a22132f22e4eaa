"""A known capacity under noise lies inside the interval about as often as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sarathi_plugin.search.capacity import Verdict
from sarathi_plugin.search.repeats import in_sequence

TRUE = 7.0
EXPERIMENTS = 400


def covered(judge_of, repeats: int) -> float:
    """Share of experiments whose interval holds the true capacity."""
    inside = 0
    for experiment in range(EXPERIMENTS):
        rng = np.random.default_rng([experiment, repeats])
        found = in_sequence(judge_of(rng), range(repeats), start=3.0, resolution=0.02).interval
        inside += found.low <= TRUE <= found.high
    return inside / EXPERIMENTS


@pytest.mark.parametrize("repeats", [3, 5])
@pytest.mark.parametrize("spread", [0.03, 0.1])
def test_seeds_with_capacities_of_their_own(repeats: int, spread: float):
    """As in the simulator: under one seed everything is fixed, and seeds differ."""

    def judge_of(rng: np.random.Generator):
        own = TRUE * (1 + spread * rng.standard_normal(repeats))
        return lambda rate, seed: Verdict(rate, rate <= own[seed], 1.0, 0)

    # 95 % of 400 lies within 92 and 98 % nearly always.
    assert 0.92 <= covered(judge_of, repeats) <= 0.985


@pytest.mark.parametrize("spread", [0.03, 0.08])
def test_runs_that_differ_even_under_one_seed(spread: float):
    """As on a live server: every run has its luck, and near the capacity it decides."""

    def judge_of(rng: np.random.Generator):
        def judge(rate: float, _seed: int) -> Verdict:
            chance = 1 / (1 + math.exp((rate / TRUE - 1) / spread * 1.8))
            return Verdict(rate, bool(rng.random() < chance), 1.0, 0)

        return judge

    assert covered(judge_of, 4) >= 0.88


def test_an_interval_that_is_too_narrow_would_be_seen():
    """The check above can fail: half the interval covers far less."""
    inside = 0
    for experiment in range(EXPERIMENTS):
        rng = np.random.default_rng([experiment, 9])
        own = TRUE * (1 + 0.1 * rng.standard_normal(4))
        found = in_sequence(
            lambda rate, seed, own=own: Verdict(rate, rate <= own[seed], 1.0, 0),
            range(4),
            start=3.0,
            resolution=0.02,
        ).interval
        half = (found.high - found.low) / 4
        inside += abs(found.mean - TRUE) <= half
    assert inside / EXPERIMENTS < 0.9
