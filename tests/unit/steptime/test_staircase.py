"""Ramps, tile edges, and least squares without negative coefficients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sarathi_plugin.steptime.staircase import non_negative_least_squares, ramps, tile_knots


def test_ramps_times_coefficients_is_the_curve_through_the_knots():
    curve = ramps(np.array([1.0, 5, 10, 11, 20, 99]), [1, 10, 11, 20]) @ np.array([1.0, 9, 5, 3])
    assert curve.tolist() == [1, 5, 10, 15, 18, 18]


def test_tiles_have_a_knot_at_their_end_and_one_behind_it():
    assert tile_knots(300, ((64, 128), (128, 10_000))) == [1, 64, 65, 128, 129, 256, 257, 300]
    assert tile_knots(300, ((64, 128),)) == [1, 64, 65, 128, 129, 192, 193, 256, 257, 300]
    assert tile_knots(65, ((64, 128),)) == [1, 64, 65]
    assert tile_knots(1, ((64, 128),)) == [1]


def best_by_trial(rows: np.ndarray, target: np.ndarray) -> float:
    """The smallest residual over all sets of columns with non-negative solutions."""
    best = float(np.linalg.norm(target))
    for size in range(1, rows.shape[1] + 1):
        for chosen in itertools.combinations(range(rows.shape[1]), size):
            found = np.linalg.lstsq(rows[:, chosen], target, rcond=None)[0]
            if found.min() >= 0:
                best = min(best, float(np.linalg.norm(rows[:, chosen] @ found - target)))
    return best


@pytest.mark.parametrize("seed", range(60))
def test_the_optimum_is_exact(seed: int):
    rng = np.random.default_rng(seed)
    rows, target = rng.normal(size=(15, 7)), rng.normal(size=15)
    if seed % 2:  # all alike, so that some columns come in and have to leave again
        rows, target = 1 + rows / 10, 1 + target / 10
    rows *= 10.0 ** rng.integers(-6, 7, 7)
    if seed % 3 == 0:
        rows[:, 0] = 0
    if seed % 4 == 0:
        rows[:, 1] = rows[:, 2]
    found = non_negative_least_squares(rows, target)
    assert (found >= 0).all()
    assert np.linalg.norm(rows @ found - target) == pytest.approx(best_by_trial(rows, target), abs=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_an_equation_that_weighs_ten_thousand_times_the_others_does_not_hide_them(seed: int):
    rng = np.random.default_rng(seed)
    rows, wanted = rng.random((200, 12)), rng.random(12)
    heavy = 1e4 * 200**0.5 * rows.mean(axis=0, keepdims=True)
    both = np.vstack([rows, heavy])
    assert non_negative_least_squares(both, both @ wanted) == pytest.approx(wanted, rel=1e-3)


def test_without_positive_use_of_any_column_all_are_zero():
    assert non_negative_least_squares(np.eye(3), np.array([-1.0, -2, 0])).tolist() == [0, 0, 0]
    assert non_negative_least_squares(np.zeros((4, 2)), np.ones(4)).tolist() == [0, 0]


def test_more_unknowns_than_equations_are_solved():
    rows = np.abs(np.random.default_rng(0).normal(size=(3, 8)))
    found = non_negative_least_squares(rows, rows @ np.ones(8))
    assert rows @ found == pytest.approx(rows @ np.ones(8))
