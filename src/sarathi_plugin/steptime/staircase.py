"""Curves that never fall: the linear part of a step as sums of ramps with weights of zero or more.

A ramp rises from 0 to 1 between two neighbouring knots. Two knots one token apart make a stair, which is what matrix
products in tiles look like (Vidur, arXiv 2405.05465, operator tables).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOLERANCE = 1e-13
"""Gains below this share of the target are rounding. Far more would hide light equations beside heavy ones."""


def ramps(tokens: NDArray[np.float64], knots: Sequence[int]) -> NDArray[np.float64]:
    """Shape (tokens, knots): a column of ones, then one ramp for each pair of neighbouring knots, flat outside it.

    Columns times coefficients is a curve whose value at a knot is the running sum of the coefficients.
    """
    columns = [np.ones(len(tokens))]
    for low, high in itertools.pairwise(knots):
        columns.append(np.clip((tokens - low) / (high - low), 0, 1))
    return np.stack(columns, axis=1)


def tile_knots(longest: int, tiles: Sequence[tuple[int, int]]) -> list[int]:
    """Token counts just after the edge and at the end of every tile, from 1 to ``longest``.

    tiles: (width, up to how many tokens), ascending; the last reaches ``longest`` whatever it says.
    """
    found = [1]
    at = 0
    for width, upto in (*tiles[:-1], (tiles[-1][0], longest)):
        while at < min(upto, longest):
            if at:
                found.append(at + 1)
            at = min(at + width, longest)
            if at > found[-1]:
                found.append(at)
    return found


def non_negative_least_squares(rows: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The coefficients c >= 0 with the smallest |rows @ c - target|, exactly.

    rows: (equations, unknowns); target: (equations,). Lawson and Hanson, Solving Least Squares Problems, ch. 23, on
    the triangle of a QR decomposition and columns of length one. Columns of zeros get zero.
    """
    norms = np.linalg.norm(rows, axis=0)
    lengths = np.where(norms > 0, norms, 1.0)
    orthogonal, triangle = np.linalg.qr(rows / lengths)
    goal = orthogonal.T @ target
    small = TOLERANCE * max(float(np.linalg.norm(target)), 1e-300)
    found = np.zeros(rows.shape[1])
    active = np.zeros(rows.shape[1], bool)
    for _ in range(10 * rows.shape[1]):
        gain = triangle.T @ (goal - triangle @ found)
        gain[active | (norms == 0)] = -np.inf
        best = int(np.argmax(gain))
        if gain[best] <= small:
            break
        active[best] = True
        found = _shrink(triangle, goal, active, found)
        if not active[best]:
            break  # its gain was rounding
    return np.asarray(found / lengths, np.float64)


def _shrink(
    triangle: NDArray[np.float64],
    goal: NDArray[np.float64],
    active: NDArray[np.bool_],
    found: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The optimum over the active columns; those that would turn negative leave ``active`` on the way to it."""
    while active.any():
        chosen = np.flatnonzero(active)
        wanted = np.linalg.lstsq(triangle[:, chosen], goal, rcond=None)[0]
        if (wanted > 0).all():
            full = np.zeros_like(found)
            full[chosen] = wanted
            return full
        now = found[chosen]
        low = wanted <= 0
        way = np.full(len(chosen), np.inf)
        way[low] = now[low] / np.maximum(now[low] - wanted[low], 1e-300)
        step = float(way.min())
        found = found.copy()
        found[chosen] = np.maximum(now + step * (wanted - now), 0.0)
        leaving = chosen[way <= step]
        found[leaving] = 0.0
        active[leaving] = False
    return np.zeros_like(found)
