"""Residuals of a step-time profile: real over predicted duration as quantiles whose drawn mean is 1.

A simulator without them has the right mean and no tail. Draws go along straight lines between the quantiles, so it is
the mean under those lines that must be 1, or every simulated run would be too long or too short by the rest.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILES = 41
END = 0.0005
"""Probability at which the first and last quantile of an unbounded distribution are taken."""


def residual_quantiles(ratios: NDArray[np.float64]) -> list[float]:
    """Measured real over predicted durations, shape (steps,), as ascending quantiles with mean 1.

    The two ends are not the extremes: they are set so that the outermost fortieths keep their mean. One step of four
    times its length among thousands would otherwise be drawn, in part, by every fortieth step.
    """
    ranked = np.sort(ratios)
    found = np.asarray(np.quantile(ranked, np.linspace(0, 1, QUANTILES)), np.float64)
    tail = max(1, round(len(ranked) / (QUANTILES - 1)))
    found[0] = np.clip(2 * ranked[:tail].mean() - found[1], ranked[0], found[1])
    found[-1] = np.clip(2 * ranked[-tail:].mean() - found[-2], found[-2], ranked[-1])
    return _with_mean_one(found)


def lognormal_quantiles(sigma: float) -> list[float]:
    """Quantiles of a lognormal distribution with mean 1; sigma: standard deviation of its logarithm."""
    at = np.clip(np.linspace(0, 1, QUANTILES), END, 1 - END)
    normal = NormalDist()
    return _with_mean_one(np.exp([sigma * normal.inv_cdf(p) for p in at.tolist()]))


def _with_mean_one(quantiles: NDArray[np.float64]) -> list[float]:
    mean = float(((quantiles[:-1] + quantiles[1:]) / 2).mean())
    return [float(f"{value / mean:.5g}") for value in quantiles]
