"""Unfinished prompts, in columns: what a policy ranks a thousand waiting requests by, without touching each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import IntArray, Prompts, RequestRow
from sarathi_plugin.telemetry.snapshot import ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence


class PromptColumns:
    """Columns by slot of a RequestTable. waits: whether the request in a slot is not admitted."""

    def __init__(self, tbt_ns: IntArray, slo_index: IntArray) -> None:
        self._tbt_ns, self._slo_index = tbt_ns, slo_index
        self._arrival_ns = np.zeros(ROWS, np.int64)
        self._due_ns = np.zeros(ROWS, np.int64)
        self._importance = np.ones(ROWS)
        self._left = np.zeros(ROWS, np.int64)
        self.waits = np.zeros(ROWS, bool)
        self._used = 0

    def add(self, row: RequestRow) -> None:
        """A request arrived: it waits."""
        slot = row.slot
        self._arrival_ns[slot] = row.arrival_ns
        self._due_ns[slot] = row.prefill_deadline_ns
        self._importance[slot] = row.slo.importance
        self._used = max(self._used, slot + 1)
        self.wait(row)

    def wait(self, row: RequestRow) -> None:
        """A request waits, again after a preemption: all of it is to be computed."""
        self._left[row.slot] = row.total_tokens
        self.waits[row.slot] = True

    def take(self, held: Sequence[RequestRow]) -> Prompts:
        """All that is unfinished; held: the prompts under way."""
        for row in held:
            self._left[row.slot] = row.remaining_tokens
        mine = np.array([row.slot for row in held], np.int64)
        slots = np.concatenate([mine, np.flatnonzero(self.waits[: self._used])])
        return Prompts(
            slots,
            self._arrival_ns.take(slots),
            self._due_ns.take(slots),
            self._tbt_ns.take(slots),
            self._slo_index.take(slots),
            self._importance.take(slots),
            self._left.take(slots),
        )
