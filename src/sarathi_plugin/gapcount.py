"""How many gaps between tokens exceeded their D_d lately, per SLO class: what a P99 target still forgives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.core import IntArray, SloClass

MEMORY = 1 << 16
"""A class with so many gaps forgets half of them: what was good long ago excuses nothing now."""

LOST, SURE = 0.1, 100
"""With more than this share of its gaps late, and so many besides, a class has lost its target."""


class GapCount:
    """Shape (classes,) each: tbt_ns, gaps seen, those of them that were late."""

    def __init__(self, classes: Sequence[SloClass]) -> None:
        self.tbt_ns = np.array([slo.tbt_ns for slo in classes], np.int64)
        self.seen = np.zeros(len(self.tbt_ns), np.int64)
        self.late = np.zeros(len(self.tbt_ns), np.int64)

    def note(self, slo_index: IntArray, gaps_ns: IntArray | int) -> None:
        """A step ended: the gap of every request that had a token before; slo_index: their classes, shape (n,)."""
        classes = len(self.seen)
        self.seen += np.bincount(slo_index, minlength=classes)
        late = slo_index[gaps_ns > self.tbt_ns[slo_index]]
        if len(late):
            self.late += np.bincount(late, minlength=classes)
        full = self.seen >= MEMORY
        if full.any():
            self.seen[full] //= 2
            self.late[full] //= 2

    def limit_ns(self, decode_tbt_ns: IntArray, share: float, cap_ns: float, alone_ns: float) -> float:
        """The longest step after which at most ``share`` of the gaps of every class are late, and at most ``cap_ns``.

        decode_tbt_ns: D_d of each decode in the step, shape (decodes,). A class has no late gap to give away before it
        has seen enough of them; the step may then take its D_d. One that has lost its target, and whose D_d is less
        than ``alone_ns``, what the decodes alone take, limits nothing: shorter steps would not bring it back.
        """
        limit = cap_ns
        for tbt_ns, seen, late in zip(
            self.tbt_ns.tolist(), self.seen.tolist(), self.late.tolist(), strict=True
        ):
            if tbt_ns < alone_ns and late > LOST * seen + SURE:
                continue
            here = int(np.count_nonzero(decode_tbt_ns == tbt_ns))
            if here and late + here > share * seen:
                limit = min(limit, tbt_ns)
        return limit
