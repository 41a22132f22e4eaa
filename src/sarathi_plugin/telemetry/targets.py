"""The live acceptance curve: every request judged at several D_d at once, first token not judged.

Source: Etalon (arXiv 2407.07000), acceptance curve and fluid token generation rate.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import NS_PER_S, IntArray
from sarathi_plugin.deadlines import FLUID_THRESHOLD, overdue_periods
from sarathi_plugin.telemetry.snapshot import ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.telemetry.emission import TokenBatch
    from sarathi_plugin.telemetry.table import Outcome

WINDOW = 256
"""Finished requests behind the live fluid token rate."""

SHARE = 0.99


class TargetTable:
    """One deadline state per target and live request, in columns. targets_ns: ascending.

    Between misses the next deadline is ``base + target x tokens so far``, so a step without a miss changes nothing.
    """

    def __init__(self, targets_ns: Sequence[int]) -> None:
        self._targets = list(targets_ns)
        # One array per target: rows of a matrix are several times slower to index.
        self._base = [np.zeros(ROWS, np.int64) for _ in targets_ns]
        self._late = [np.zeros(ROWS, np.int64) for _ in targets_ns]
        self._missed = [np.zeros(ROWS, np.int64) for _ in targets_ns]
        self._recent: deque[list[bool]] = deque(maxlen=WINDOW)

    def emit(self, batch: TokenBatch) -> None:
        """Take one step's tokens."""
        slots, counts, now = batch.slots, batch.counts, batch.now_ns
        if batch.gaps_ns.min() < 0:
            fresh = slots[batch.gaps_ns < 0]
            for base, late, missed in zip(self._base, self._late, self._missed, strict=True):
                base[fresh] = now
                late[fresh] = missed[fresh] = 0
        # A token is due at least one D_d after the one before, so only a gap above D_d can be late.
        longest = batch.gaps_ns.max()
        before = batch.totals - counts
        for index, target in enumerate(self._targets):
            if longest <= target:
                break
            self._emit_at(index, target, batch, before)

    def _emit_at(self, index: int, target: int, batch: TokenBatch, before: IntArray) -> None:
        slots, now = batch.slots, batch.now_ns
        earned = before * target
        base = self._base[index][slots]
        overdue = now - base - earned
        if overdue.max() > 0:
            late = overdue > 0
            if late.all():
                self._missed[index][slots] += overdue // target + 1
                self._late[index][slots] += 1
                self._base[index][slots] = now - earned
                return
            self._missed[index][slots] += late * (overdue // target + 1)
            self._late[index][slots] += late
            self._base[index][slots] = np.where(late, now - earned, base)

    def judge(self, outcome: Outcome) -> list[tuple[int, bool]]:
        """(target, fluid) of a request that left; nothing for one that never had a second token."""
        slot, tokens = outcome.row.slot, outcome.tokens
        if tokens < 2:  # the second token is the first one judged
            return []
        found = []
        for index, target in enumerate(self._targets):
            met = tokens - 1 - int(self._late[index][slot])
            missed = int(self._missed[index][slot])
            if outcome.status != "finished":
                due = int(self._base[index][slot]) + target * tokens
                missed += overdue_periods(outcome.end_ns, due, target)
            found.append((target, met >= FLUID_THRESHOLD * (met + missed)))
        self._recent.append([fluid for _, fluid in found])
        return found

    @property
    def fluid_token_rate(self) -> float:
        """Tokens per second that 99 % of the recent requests could be promised; 0 when no target was."""
        if not self._recent:
            return 0.0
        shares = np.array(self._recent).mean(axis=0)
        good = np.nonzero(shares >= SHARE)[0]
        return NS_PER_S / self._targets[good[0]] if len(good) else 0.0
