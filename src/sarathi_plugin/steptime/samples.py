"""Recorded steps as columns, and where the linear part of their durations may bend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.steptime.staircase import ramps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sarathi_plugin.records import StepRecord

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

TILES = ((64, 1024), (128, 4096))
"""Widths of stairs looked for, and up to how many tokens (see ``vidur.TILES``)."""

LEAST_IN_TILE = 8
KNOTS = 32
STEPS_PER_KNOT = 25


@dataclass(frozen=True, slots=True)
class Samples:
    """Steps as columns, each of shape (steps,). traffic: which ran under traffic, not to cover a grid of shapes."""

    seconds: Array
    tokens: Array
    rows: Array
    context: Array
    prefill: Array
    pairs: Array
    traffic: Mask

    def take(self, mask: Mask) -> Samples:
        """Some of them."""
        columns = (self.seconds, self.tokens, self.rows, self.context, self.prefill, self.pairs)
        seconds, tokens, rows, context, prefill, pairs = (column[mask] for column in columns)
        return Samples(seconds, tokens, rows, context, prefill, pairs, self.traffic[mask])

    @property
    def prompts(self) -> Mask:
        """Which carry prompt tokens."""
        return self.prefill > 0

    def design(self, knots: Sequence[int]) -> Array:
        """Shape (steps, knots + 6): the ramps of the linear part, then the six terms of a profile."""
        terms = np.stack(
            [self.rows > 0, self.rows, self.context, self.prompts, self.prefill, self.pairs],
            axis=1,
            dtype=np.float64,
        )
        return np.hstack([ramps(self.tokens, knots), terms])


def samples_of(steps: Sequence[StepRecord], traffic: Sequence[bool] | None = None) -> Samples:
    """Recorded steps as columns. traffic: for each step; of none when None."""
    table = np.array([(step.duration_ns / NS_PER_S, *step.shape) for step in steps], np.float64)
    seconds, rows, decodes, context, prefill, pairs = table.reshape(-1, 6).T
    under_traffic = np.zeros(len(steps), bool) if traffic is None else np.array(traffic, bool)
    return Samples(seconds, decodes + prefill, rows, context, prefill, pairs, under_traffic)


def choose_knots(samples: Samples) -> list[int]:
    """Token counts at which the linear part may bend: quantiles of those seen, and both sides of tile edges.

    Steps with and without prompts have quantiles of their own. An edge counts if steps were seen on both its sides.
    """
    tokens, prompts = samples.tokens, samples.prompts
    found = {int(tokens.min()), int(tokens.max())}
    for part in (tokens[prompts], tokens[~prompts]):
        count = min(KNOTS, max(2, len(part) // STEPS_PER_KNOT))
        found.update(
            np.quantile(part, np.linspace(0, 1, count), method="nearest").astype(int).tolist()
            if len(part)
            else ()
        )
    low = 0
    for width, upto in TILES:
        for edge in range(low + width, upto + 1, width):
            before = (tokens > edge - width) & (tokens <= edge)
            after = (tokens > edge) & (tokens <= edge + width)
            if min(before.sum(), after.sum()) >= LEAST_IN_TILE:
                found.update((edge, edge + 1))
        low = upto
    return sorted(found)
