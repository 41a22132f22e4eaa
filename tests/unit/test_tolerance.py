"""Learned output lengths, and what lateness costs."""

from __future__ import annotations

import numpy as np
import pytest

from sarathi_plugin.core import SloClass
from sarathi_plugin.deadlines import FLUID_THRESHOLD
from sarathi_plugin.tolerance import LONGEST, PRIOR, RECENT, Tolerance

CHAT, BATCH = SloClass("chat", 50_000_000, 10**9), SloClass("batch", 200_000_000, 10**10)


def taught(lengths: list[int], index: int = 0) -> Tolerance:
    """After so many answers that the prior has left."""
    tolerance = Tolerance([CHAT, BATCH])
    for _ in range(2 * RECENT // len(lengths)):
        for length in lengths:
            tolerance.note(index, length)
    return tolerance


def test_before_any_answer_lengths_are_those_of_the_prior():
    survival = Tolerance([CHAT]).survival[0]
    assert survival[0] == survival[min(PRIOR)] == 1
    assert survival[min(PRIOR) + 1] == pytest.approx(1 - 1 / len(PRIOR))
    assert survival[max(PRIOR) + 1] == 0


def test_answers_replace_the_prior_class_by_class():
    tolerance = taught([100, 300], index=1)
    assert tolerance.survival[1, 100] == pytest.approx(1)
    assert tolerance.survival[1, 101] == pytest.approx(0.5, abs=0.01)
    assert tolerance.survival[1, 301] == pytest.approx(0)
    assert tolerance.survival[0].tolist() == Tolerance([CHAT]).survival[0].tolist()


def test_answers_beyond_the_longest_count_as_the_longest():
    assert taught([10 * LONGEST]).survival[0, LONGEST] == pytest.approx(1)


@pytest.mark.parametrize("tokens", [2, 9, 10, 11, 44, 91, 100])
def test_a_late_first_token_loses_just_the_answers_that_end_below_the_threshold(tokens: int):
    lost = taught([tokens]).lost(0)
    for misses in range(30):
        index = (tokens - 1) / (tokens - 1 + misses) if misses else 1.0
        assert lost[misses] == pytest.approx(float(index < FLUID_THRESHOLD - 1e-12), abs=0.02), misses


def test_a_further_wait_costs_more_the_longer_it_is():
    tolerance = taught([20, 100, 500])
    losses = [tolerance.expected_loss(0, octave)[1] for octave in (-4, 0, 4, 8, 12)]
    assert losses == sorted(losses)
    assert losses[0] == pytest.approx(tolerance.lost(0)[1], abs=0.02)
    assert losses[-1] > 0.3


def test_a_further_wait_is_the_mean_over_exponential_waits():
    tolerance = taught([5, 50, 200, 400])
    lost, mean = tolerance.lost(0), 2.0 ** (6 / 2)
    waits = np.random.default_rng(0).exponential(mean, 200_000)
    sampled = lost[np.minimum(3 + waits.astype(int), len(lost) - 1)].mean()
    assert tolerance.expected_loss(0, 6)[3] == pytest.approx(sampled, abs=0.01)
