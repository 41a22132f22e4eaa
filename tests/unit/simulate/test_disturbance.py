"""What may happen to a simulated machine: a function of step and time, and felt by the device just so."""

from __future__ import annotations

import numpy as np
import pytest

from sarathi_plugin.simulate.disturbance import Disturbance


def test_nothing_happens_by_default() -> None:
    assert {Disturbance().factor(step, step * 10**9) for step in range(100)} == {1.0}


def test_a_slowdown_holds_from_its_moment_on() -> None:
    calm = Disturbance(slow_from_ns=50, slowdown=2.0)
    assert [calm.factor(0, now) for now in (0, 49, 50, 10**12)] == [1.0, 1.0, 2.0, 2.0]


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_outliers_are_as_many_as_asked_for_and_scattered(seed: int) -> None:
    factors = np.array(
        [Disturbance(outlier_share=0.01, outlier_factor=10, seed=seed).factor(i, 0) for i in range(50_000)]
    )
    assert set(factors.tolist()) == {1.0, 10.0}
    at = np.flatnonzero(factors == 10)
    assert len(at) == pytest.approx(500, abs=100)  # 4.5 standard deviations
    gaps = np.diff(at)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.25)  # as of independent events


def test_which_steps_they_are_follows_from_the_seed_whoever_asks_when() -> None:
    def drawn(seed: int, order: range) -> dict[int, float]:
        asked = Disturbance(outlier_share=0.1, outlier_factor=3, seed=seed)
        return {step: asked.factor(step, 7 * step) for step in order}

    assert drawn(1, range(1000)) == drawn(1, range(999, -1, -1))
    assert drawn(1, range(1000)) != drawn(2, range(1000))


def test_both_multiply() -> None:
    both = Disturbance(slow_from_ns=0, slowdown=2, outlier_share=1, outlier_factor=10)
    assert both.factor(3, 0) == 20
