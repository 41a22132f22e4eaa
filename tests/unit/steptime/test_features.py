"""Features of a step, and the fit that keeps coefficients physical."""

from __future__ import annotations

import numpy as np
import pytest

from sarathi_plugin.core import StepShape
from sarathi_plugin.steptime.features import FEATURES, SCALE, features, solve_non_negative


def test_features_are_the_sums_of_a_step_divided_by_their_scale():
    shape = StepShape(
        decode_rows=4, decode_tokens=8, decode_context=2000, prefill_tokens=512, prefill_attention=3e5
    )
    unscaled = [value * scale for value, scale in zip(features(shape), SCALE, strict=True)]
    assert unscaled == pytest.approx([1, 8, 2000, 512, 3e5])
    assert len(FEATURES) == len(SCALE) == len(features(StepShape()))


def test_an_empty_step_has_its_constant_alone():
    assert features(StepShape()) == (1, 0, 0, 0, 0)


def test_without_a_negative_coefficient_the_fit_is_least_squares():
    rng = np.random.default_rng(1)
    rows = rng.random((50, 3))
    wanted = np.array([1.0, 0.5, 2.0])
    assert solve_non_negative(rows.T @ rows, rows.T @ rows @ wanted) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(20))
def test_no_coefficient_is_negative_and_the_rest_are_the_best_without_it(seed: int):
    rng = np.random.default_rng(seed)
    rows = rng.random((30, 4))
    target = rows @ rng.normal(size=4)
    found = solve_non_negative(rows.T @ rows, rows.T @ target)
    assert (found >= 0).all()
    kept = found > 0
    if kept.any():
        best = np.linalg.lstsq(rows[:, kept], target, rcond=None)[0]
        assert found[kept] == pytest.approx(best)


def test_a_machine_that_only_has_negative_coefficients_gets_none():
    assert solve_non_negative(np.eye(2), np.array([-1.0, -2.0])).tolist() == [0, 0]
