"""What one step emitted, kept together while the batch stays the same; worked out only when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sarathi_plugin.core import IntArray


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """What one step emitted: one entry per request, all arrays of the same length.

    counts: tokens (more than one under speculative decoding). gaps_ns: time since the request's token before, -1
    for a first token. missed: deadlines missed by this emission, None when there were none. overdue_ns: how far past
    its deadline the emission came, <= 0 when on time. totals: tokens of the request so far, these included.
    """

    now_ns: int
    slots: IntArray
    slo_index: IntArray
    counts: IntArray
    gaps_ns: IntArray
    missed: IntArray | None
    overdue_ns: IntArray
    totals: IntArray


EMPTY = np.empty(0, np.int64)
NO_TOKENS = (EMPTY,) * 7
"""The columns of a TokenBatch that holds nothing."""


@dataclass(slots=True)
class Batch:
    """Columns of the requests that yield tokens together.

    step: D_d times tokens per step; uniform: the same as one number, 0 when they differ. before: tokens of each before
    this batch formed; fresh: some had none. deadline + shift (when the next tokens are due), earliest (of these), last
    (one moment for all, once they yielded together) and steps change as tokens come.
    """

    slots: IntArray
    counts: IntArray
    slo_index: IntArray
    tbt: IntArray
    step: IntArray
    uniform: int
    before: IntArray
    fresh: bool
    deadline: IntArray
    earliest: int
    last: IntArray | int
    shift: int = 0
    steps: int = 0


@dataclass(slots=True)
class Emission:
    """One step's tokens, cheap to make; ``tokens`` works out the columns, later and out of the engine's way."""

    now_ns: int
    batch: Batch
    due: IntArray
    shift: int
    missed: IntArray | None
    last: IntArray | int
    before: IntArray
    steps: int

    def tokens(self) -> TokenBatch:
        """The columns."""
        batch = self.batch
        totals = self.before + (self.steps + 1) * batch.counts
        gaps = self.now_ns - self.last + np.zeros(len(totals), np.int64)
        if batch.fresh and not self.steps:
            gaps[self.before == 0] = -1
        return TokenBatch(
            self.now_ns,
            batch.slots,
            batch.slo_index,
            batch.counts,
            gaps,
            self.missed,
            self.now_ns - self.due - self.shift,
            totals,
        )
