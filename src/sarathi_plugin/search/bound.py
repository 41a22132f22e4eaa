"""An upper bound on what any scheduler could reach: fluid capacity that no schedule exceeds.

Any scheduler: chunked prefill and decode steps on one serial machine with perfect knowledge of arrivals, lengths and
step times, and memory without end. ``feasible`` is False only with a proof; the proofs are in docs/bound.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from sarathi_plugin.config import ConfigError
from sarathi_plugin.search.local import stuck
from sarathi_plugin.search.relaxation import CostModel, Job, Problem
from sarathi_plugin.search.windows import overload

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CostModel", "Job", "Obstacle", "capacity_bound", "feasible", "obstacle"]

Obstacle = Literal["latency", "prefill", "decode", "steps"]
"""Why not: one job alone, a window full of prompts or of decodes, or steps of a few neighbours that cannot be cut."""

SEARCH_EFFORT = 150_000
"""Partial steps the search of a few neighbours may try before it gives up, which leaves the bound valid."""

MANY = 32
SEARCH_EFFORT_OF_MANY = 5_000
"""The same when there are more jobs than MANY: long windows rule, and neighbours are many."""

WIDEST = 1.0
"""Largest range of factors ruled out at once, as a share of its lower end."""

HIGHEST = 1e6
LOWEST = 1e-6
"""Compression factors: beyond the highest all arrive at once, below the lowest each job is alone."""


def feasible(jobs: Sequence[Job], cost: CostModel, *, share: float = 0.99) -> bool:
    """Whether the bound leaves room for ``share`` of the jobs to be fluid; False only if NO schedule does it.

    Raises ConfigError on a job or share without meaning.
    """
    return obstacle(jobs, cost, share=share) is None


def obstacle(jobs: Sequence[Job], cost: CostModel, *, share: float = 0.99, search: bool = True) -> str | None:
    """What rules the jobs out (see ``Obstacle``), or None. search=False leaves out the search of few neighbours."""
    return _between(Problem(jobs, cost, share), 1.0, 1.0, search)


def capacity_bound(
    jobs: Sequence[Job],
    cost: CostModel,
    *,
    share: float = 0.99,
    resolution: float = 0.005,
    search: bool = True,
) -> float:
    """Upper bound on the factors by which arrivals can be compressed (times divided by it) with ``share`` fluid.

    Every larger factor is ruled out, range by range, not only the next one. Infinite when all may arrive at
    once, 0 when not even jobs far apart can be fluid. resolution: relative. Raises ConfigError.
    """
    if not 0 < resolution < 1:
        raise ConfigError(f"The resolution is {resolution}; give a share between 0 and 1.")
    problem = Problem(jobs, cost, share)
    if not len(problem.jobs) or _between(problem, HIGHEST, np.inf, search) is None:
        return np.inf
    high = _descend(problem, _ceiling(problem, resolution), resolution, search=False)
    return _descend(problem, high, resolution, search=search) if search else high


def _ceiling(problem: Problem, resolution: float) -> float:
    """A factor from which on windows rule out everything at once, by bisection."""
    low, high = LOWEST, HIGHEST
    while high > low * (1 + resolution):
        middle = float(np.sqrt(low * high))
        if overload(problem, middle, np.inf) is None:
            low = middle
        else:
            high = middle
    return high


def _descend(problem: Problem, high: float, resolution: float, *, search: bool) -> float:
    """Rule out range after range below ``high``, wider ones after each success; returns where that ends (0: never)."""
    width = resolution
    while high > LOWEST:
        low = high / (1 + width)
        if _between(problem, low, high, search) is not None:
            high, width = low, min(2 * width, WIDEST)
        elif width > resolution:
            width = max(width / 2, resolution)
        else:
            return high
    return 0.0


def _between(problem: Problem, low: float, high: float, search: bool) -> str | None:
    """The obstacle that holds for every factor from low to high."""
    found = overload(problem, low, high)
    effort = SEARCH_EFFORT if len(problem.jobs) <= MANY else SEARCH_EFFORT_OF_MANY
    if found is None and search and stuck(problem, low, high, effort):
        return "steps"
    return found
