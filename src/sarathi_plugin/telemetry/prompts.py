"""Unfinished prompts, in columns: what a policy ranks a thousand waiting requests by, without touching each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import Prompts, RequestRow
from sarathi_plugin.telemetry.snapshot import ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sarathi_plugin.core import IntArray


class PromptColumns:
    """The waiting prompts of a RequestTable side by side, by slot, so that nothing is gathered for a plan.

    They stand from the middle of the columns on; before it there is room for those under way. classes: index by name.
    """

    def __init__(self, classes: Mapping[str, int]) -> None:
        self._classes = classes
        self._columns = np.zeros((len(Prompts._fields), 2 * ROWS), np.int64)
        self._slots = self._columns[0]
        self._end = ROWS

    def waits(self, slot: int) -> bool:
        """Whether the request in a slot is not admitted."""
        place = self._place(slot)
        return place < self._end and bool(self._slots[place] == slot)

    def wait(self, row: RequestRow) -> None:
        """A request waits, new or again, or what is computed of it has changed."""
        place = self._place(row.slot)
        if not self.waits(row.slot):
            self._columns[:, place + 1 : self._end + 1] = self._columns[:, place : self._end]
            self._end += 1
        self._write(place, row)

    def leave(self, slot: int) -> None:
        """The request in a slot waits no longer, if it did."""
        if self.waits(slot):
            place = self._place(slot)
            self._columns[:, place : self._end - 1] = self._columns[:, place + 1 : self._end]
            self._end -= 1

    @property
    def waiting(self) -> IntArray:
        """Slots of those that wait, ascending; good until the next change."""
        slots: IntArray = self._slots[ROWS : self._end]
        return slots

    def take(self, held: Sequence[RequestRow]) -> Prompts:
        """All that is unfinished, good until the next change; held: the prompts under way."""
        first = ROWS - len(held)
        for place, row in enumerate(held, first):
            self._write(place, row)
        return Prompts(*self._columns[:, first : self._end])

    def _place(self, slot: int) -> int:
        return ROWS + int(self._slots[ROWS : self._end].searchsorted(slot))

    def _write(self, place: int, row: RequestRow) -> None:
        index = self._classes[row.slo.name]
        due_ns, done = row.prefill_deadline_ns, row.computed_tokens
        self._columns[:, place] = (
            row.slot, row.arrival_ns, due_ns, index, row.total_tokens - done, done, row.preempted,
        )  # fmt: skip
