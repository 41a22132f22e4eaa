"""Deadline state of all live requests, in columns: one vectorised update per step, whatever the batch.

The arithmetic is ``deadlines.DeadlineState`` over arrays; a property test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sarathi_plugin.core import IntArray, RequestRow, SloClass
from sarathi_plugin.deadlines import overdue_periods
from sarathi_plugin.gapcount import GapCount
from sarathi_plugin.records import RequestStatus, RequestTimeline
from sarathi_plugin.telemetry.emission import Batch, Emission, TokenBatch
from sarathi_plugin.telemetry.prompts import PromptColumns
from sarathi_plugin.telemetry.snapshot import FREE, ROWS, Snapshot
from sarathi_plugin.tolerance import Tolerance
from sarathi_plugin.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.deadlines import PrefillCurve


class Outcome(NamedTuple):
    """Final figures of one request that left.

    late: deadlines missed at the very end (its next token never came). stall_ns: length of the stall it left in, 0
    when it was on time or had no output. first_ns: its first token, 0 without.
    """

    row: RequestRow
    slo_index: int
    status: RequestStatus
    met: int
    missed: int
    late: int
    stall_ns: int
    end_ns: int
    tokens: int
    first_ns: int


class RequestTable:
    """All live requests of one engine. Not thread-safe: only the engine's thread writes.

    classes: in the order of their indices. keep_tokens: keep every token's time (for timelines). count_gaps: count
    those that are late.
    """

    def __init__(
        self,
        classes: Sequence[SloClass],
        curve: PrefillCurve,
        snapshot: Snapshot,
        *,
        keep_tokens: bool = False,
        count_gaps: bool = False,
    ) -> None:
        self.classes = tuple(classes)
        self.curve = curve
        self.snapshot = snapshot
        self.keep_tokens = keep_tokens
        self.rows: dict[str, RequestRow] = {}
        self.untracked = 0
        self._index = {slo.name: i for i, slo in enumerate(self.classes)}
        self._curve_digest = curve.digest
        self._by_slot: list[RequestRow | None] = []
        self._free: list[int] = []
        self.deadline_ns = snapshot.deadline_ns
        self.slo_index = snapshot.slo_index
        self.tbt_ns = np.ones(ROWS, np.int64)
        self.last_ns = np.zeros(ROWS, np.int64)
        self.first_ns = snapshot.first_ns
        self.late = np.zeros(ROWS, np.int64)
        self.missed = np.zeros(ROWS, np.int64)
        self.tokens = np.zeros(ROWS, np.int64)
        self.prompts = PromptColumns(self._index)
        self.tolerance = Tolerance(self.classes)
        self.waits = Waits()
        self.gaps = GapCount(self.classes) if count_gaps else None
        self._batch: Batch | None = None

    def add(
        self, request_id: str, slo: SloClass, arrival_ns: int, prompt_tokens: int, max_tokens: int
    ) -> RequestRow | None:
        """Track a new request; its first token is due at arrival + D_p. None when the table is full.

        Raises OverflowError, and leaves the table as it was, when a time does not fit into 64 bits.
        """
        if not self._free and len(self._by_slot) >= ROWS:
            self.untracked += 1
            return None
        slot = self._free[-1] if self._free else len(self._by_slot)
        prefill_ns = self.curve.prefill_ns(prompt_tokens)
        due = arrival_ns + prefill_ns + slo.ttft_slack_ns
        self.deadline_ns[slot], self.tbt_ns[slot] = due, slo.tbt_ns
        index = self._index[slo.name]
        row = RequestRow(
            request_id, slot, slo, arrival_ns, prompt_tokens, max_tokens, prefill_ns, due, prompt_tokens
        )
        self.prompts.wait(row)
        if slot == len(self._by_slot):
            self._by_slot.append(row)
        else:
            self._free.pop()
            self._by_slot[slot] = row
        self.last_ns[slot] = self.first_ns[slot] = self.late[slot] = self.missed[slot] = self.tokens[slot] = 0
        self.slo_index[slot] = index  # after the deadline: a reader must not see a stale one
        self.rows[request_id] = row
        self.snapshot.set_extent(len(self._by_slot), len(self.rows))
        return row

    def row_at(self, slot: int) -> RequestRow:
        """The request in a slot. Raises LookupError when nobody is there."""
        row = self._by_slot[slot]
        if row is None:
            raise LookupError(f"no request in slot {slot}")
        return row

    def emit(self, slots: IntArray, counts: IntArray, now_ns: int) -> TokenBatch:
        """Tokens arrived: ``counts[i] >= 1`` for the request in ``slots[i]`` (no slot twice, at least one)."""
        return self.advance(slots, counts, now_ns).tokens()

    def advance(self, slots: IntArray, counts: IntArray, now_ns: int, *, publish: bool = True) -> Emission:
        """``emit``, but only what must happen now: deadlines. The rest is worked out when the Emission is asked.

        The caller passes the same ``slots`` and ``counts`` objects while the batch stays the same: its columns are
        then kept together, and what nobody reads meanwhile is written back when the batch changes. publish=False leaves
        the column of deadlines to a later ``publish``.
        """
        batch = self._batch
        if batch is None or slots is not batch.slots or counts is not batch.counts:
            self._write_back()
            batch = self._batch = self._gather(slots, counts)
        emission = Emission(
            now_ns, batch, batch.deadline, batch.shift, None, batch.last, batch.before, batch.steps
        )
        if batch.uniform and now_ns <= batch.earliest:
            batch.shift += batch.uniform
            batch.earliest += batch.uniform
        else:
            emission.missed = self._restart(batch, now_ns)
        if publish:
            self.publish()
        if batch.fresh and not batch.steps:
            self.first_ns[slots[batch.before == 0]] = now_ns
        if self.gaps is not None:
            self._count_gaps(self.gaps, batch, now_ns)
        batch.last = now_ns
        batch.steps += 1
        if self.keep_tokens:
            self._keep(slots, counts, now_ns)
        return emission

    def _restart(self, batch: Batch, now_ns: int) -> IntArray | None:
        """Move the deadlines of a batch of which some may be late; returns the deadlines missed, None without any."""
        due, missed = batch.deadline + batch.shift, None
        if now_ns > batch.earliest:
            overdue = now_ns - due
            late = overdue > 0
            missed = np.where(late, overdue // batch.tbt + 1, 0)
            self.missed[batch.slots] += missed
            self.late[batch.slots] += late
            due = np.where(late, now_ns, due)
        batch.deadline, batch.shift = due + batch.step, 0
        batch.earliest = int(batch.deadline.min())
        return missed

    @staticmethod
    def _count_gaps(gaps: GapCount, batch: Batch, now_ns: int) -> None:
        """The gaps that these tokens end; a first token ends none."""
        between = now_ns - batch.last
        if batch.fresh and not batch.steps:
            begun = batch.before > 0
            gaps.note(batch.slo_index[begun], between[begun] if isinstance(between, np.ndarray) else between)
        else:
            gaps.note(batch.slo_index, between)

    def publish(self) -> None:
        """Bring the column of deadlines up to date."""
        batch = self._batch
        if batch is not None:
            self.deadline_ns[batch.slots] = batch.deadline + batch.shift

    def _gather(self, slots: IntArray, counts: IntArray) -> Batch:
        before, deadline, tbt = self.tokens[slots], self.deadline_ns[slots], self.tbt_ns[slots]
        step = tbt * counts
        return Batch(
            slots,
            counts,
            self.slo_index[slots],
            tbt,
            step,
            int(step[0]) if (step == step[0]).all() else 0,
            before,
            bool(before.min() == 0),
            deadline,
            int(deadline.min()),
            self.last_ns[slots],
        )

    def _write_back(self) -> None:
        """Bring the columns of the last batch up to date; the deadlines always are."""
        batch = self._batch
        if batch is not None:
            self.tokens[batch.slots] = batch.before + batch.steps * batch.counts
            self.last_ns[batch.slots] = batch.last
            self._batch = None

    def _keep(self, slots: IntArray, counts: IntArray, now_ns: int) -> None:
        by_slot = self._by_slot
        for slot, count in zip(slots.tolist(), counts.tolist(), strict=True):
            row = by_slot[slot]
            if row is None:
                continue
            if count == 1:
                row.token_ns.append(now_ns)
            else:
                row.token_ns.extend([now_ns] * count)

    def remove(self, request_id: str, status: RequestStatus, now_ns: int) -> Outcome | None:
        """The request has ended. One that did not finish is charged what it has missed up to now."""
        row = self.rows.pop(request_id, None)
        if row is None:
            return None
        self._write_back()
        slot = row.slot
        late = stall = 0
        if status != "finished":
            deadline = int(self.deadline_ns[slot])
            late = overdue_periods(now_ns, deadline, row.slo.tbt_ns)
            if late and self.tokens[slot]:
                stall = now_ns - deadline
        outcome = Outcome(
            row,
            int(self.slo_index[slot]),
            status,
            int(self.tokens[slot] - self.late[slot]),
            int(self.missed[slot]) + late,
            late,
            stall,
            (int(self.last_ns[slot]) or now_ns) if status == "finished" else now_ns,
            int(self.tokens[slot]),
            int(self.first_ns[slot]),
        )
        if status == "finished":
            self.tolerance.note(outcome.slo_index, outcome.tokens)
            if outcome.first_ns:
                self.waits.note(outcome.first_ns - row.arrival_ns)
        self.slo_index[slot] = FREE
        self._by_slot[slot] = None
        self.prompts.leave(slot)
        self._free.append(slot)
        return outcome

    def timeline(self, outcome: Outcome) -> RequestTimeline:
        """The full record of a request that left (token times only with ``keep_tokens``)."""
        row = outcome.row
        return RequestTimeline(
            request_id=row.request_id,
            source="server",
            slo_class=row.slo.name,
            arrival_ns=row.arrival_ns,
            sent_ns=None,
            scheduled_ns=row.scheduled_ns,
            token_ns=tuple(row.token_ns),
            end_ns=outcome.end_ns,
            status=outcome.status,
            prompt_tokens=row.prompt_tokens,
            tbt_ns=row.slo.tbt_ns,
            ttft_slack_ns=row.slo.ttft_slack_ns,
            prefill_ns=row.prefill_ns,
            curve=self._curve_digest,
            met=outcome.met,
            missed=outcome.missed,
        )
