"""The engine's side of the live page: latest steps and requests, and running totals, into shared memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.telemetry import broken
from sarathi_plugin.telemetry.live import layout
from sarathi_plugin.telemetry.snapshot import ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from sarathi_plugin.core import RequestRow, StepShape
    from sarathi_plugin.records import RequestTimeline, StepRecord
    from sarathi_plugin.telemetry.buffer import Message
    from sarathi_plugin.telemetry.emission import TokenBatch
    from sarathi_plugin.telemetry.table import Outcome

guarded = broken.guarded("Data for the live page is off; the engine goes on.")


class ScheduledStep(Protocol):
    """What is known of a step when it is scheduled."""

    step: int
    schedule_ns: int
    shape: StepShape
    chunks: int
    predicted_ns: int
    budget: int
    running: int
    waiting: int
    free_blocks: int


class LiveWriter:
    """One per engine. No method raises; broken: whether one failed.

    columns: of ``layout.create``. classes: names in the order of their indices.
    """

    def __init__(
        self,
        columns: np.ndarray[Any, Any],
        path: Path | None,
        classes: Sequence[str],
        now_ns: int,
        total_blocks: int,
    ) -> None:
        self.broken = False
        self._path = path
        head = columns["head"]
        self._version, self._scheduled = head["version"], head["scheduled"]
        self._head = head
        self._totals, self._seconds = columns["totals"][0], columns["seconds"][0]
        self._steps, self._requests = columns["steps"][0], columns["requests"][0]
        self._emissions, self._chunks = self._requests["emission"], self._requests["chunk"]
        self._places = layout.counter_places(list(classes))
        self._classes = {name: index for index, name in enumerate(classes)}
        self._row_of_slot = np.full(ROWS, -1, np.int64)
        self._rows: dict[str, int] = {}
        self._numbers = [0] * layout.REQUESTS
        self._tenants: list[tuple[str, int] | None] = [None] * layout.REQUESTS
        self._alive = [False] * layout.REQUESTS
        self._open: dict[int, list[tuple[int, int]]] = {}
        self._arrivals = self._step_count = 0
        head["pid"], head["started_ns"], head["classes"] = os.getpid(), now_ns, len(classes)
        head["total_blocks"] = total_blocks
        head["done_step"] = -1
        self._scheduled["step"] = -1
        head["magic"] = columns.dtype.itemsize  # last: readers wait for it

    # -- at once ------------------------------------------------------------------------------------------------

    @guarded
    def arrived(self, row: RequestRow) -> None:
        """A request was added: it is shown from now on."""
        index = min(range(layout.REQUESTS), key=lambda i: (self._alive[i], self._numbers[i]))
        self._version[0] += 1
        self._forget(index)
        self._arrivals += 1
        self._numbers[index], self._alive[index] = self._arrivals, True
        self._rows[row.request_id] = index
        self._tenants[index] = row.request_id, row.slot
        self._requests[index] = (
            row.request_id.encode()[: layout.NAME_BYTES], self._arrivals, row.slot, self._classes[row.slo.name],
            layout.WAITING, row.arrival_ns, row.prefill_deadline_ns, row.prompt_tokens, row.max_tokens,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        )  # fmt: skip
        self._head["arrivals"] = self._arrivals
        self._version[0] += 1

    def _forget(self, index: int) -> None:
        """Make room: the request that had this row is no longer followed."""
        tenant = self._tenants[index]
        if tenant is None:
            return
        name, slot = tenant
        if self._rows.get(name) == index:
            del self._rows[name]
        if self._row_of_slot[slot] == index:
            self._row_of_slot[slot] = -1
        for opened in self._open.values():
            opened[:] = [(row, at) for row, at in opened if row != index]

    @guarded
    def scheduled(self, step: ScheduledStep, computed: Iterable[tuple[str, int]]) -> None:
        """A step begins; computed: its prompt chunks as (request, tokens)."""
        shape, now = step.shape, step.schedule_ns
        self._version[0] += 1
        self._scheduled[0] = (
            step.step, now, shape.decode_rows, shape.prefill_tokens, step.chunks, step.predicted_ns, step.budget,
            step.running, step.waiting, step.free_blocks,
        )  # fmt: skip
        for name, tokens in computed:
            index = self._rows.get(name)
            if index is None:
                continue
            row = self._requests[index]
            at = int(row["chunk_count"]) % layout.CHUNKS
            self._chunks[index, at] = (step.step, tokens, now, 0)
            self._open.setdefault(step.step, []).append((index, at))
            row["chunk_count"] += 1
            if row["state"] == layout.WAITING:
                row["state"], row["scheduled_ns"] = layout.RUNNING, now
        self._version[0] += 1

    @guarded
    def done(self, step: int, now_ns: int) -> None:
        """A step has ended; what it brought comes later, with others."""
        self._head["done_ns"] = now_ns
        self._head["done_step"] = step

    @guarded
    def apply(self, message: Message, now_ns: int) -> None:
        """Add what the metrics add, so that both say the same."""
        totals, places = self._totals, self._places
        self._version[0] += 1
        for name, labels, value in message["c"]:
            at = places.get((name, tuple(labels)))
            if at is None:
                at = places.get((name, ()))
            if at is not None:
                totals[at] += value
        for name, labels, _, counts in message["h"]:
            at = places.get((name, tuple(labels)))
            if at is not None:
                totals[at : at + layout.BUCKETS] += counts
        for name, _, value in message["g"]:
            if name == "policy_enabled":
                totals[places["policy_disabled", ()]] = 1 - value
        self._note_second(now_ns)
        self._version[0] += 1

    def _note_second(self, now_ns: int) -> None:
        second = now_ns // NS_PER_S
        scheduled = self._scheduled[0]
        row = self._seconds[second % layout.SECONDS]
        row["second"], row["running"], row["waiting"] = second, scheduled["running"], scheduled["waiting"]
        row["free_blocks"] = scheduled["free_blocks"]
        row["totals"] = self._totals

    # -- in the order of events, a few at a time ----------------------------------------------------------------

    def binder(self, row: RequestRow) -> Callable[[], None]:
        """To be called when all steps from before this arrival were observed: its slot may have had another tenant."""
        index = self._rows.get(row.request_id, -1)
        number = self._numbers[index] if index >= 0 else 0

        def bind() -> None:
            if index >= 0 and self._numbers[index] == number:
                self._row_of_slot[row.slot] = index

        return bind

    @hookimpl
    def observe_step(self, record: StepRecord, tokens: TokenBatch) -> None:
        """Keep a step, and the tokens of the requests that are followed. An exception ends it, and is reported."""
        if self.broken:
            return
        self.broken = True
        self._version[0] += 1
        shape = record.shape
        if shape.kind != "empty":
            self._steps[self._step_count % layout.STEPS] = (
                record.step, record.start_ns, record.end_ns, shape.decode_tokens, shape.prefill_tokens, record.chunks,
                record.predicted_ns, record.budget, record.running, record.waiting, record.free_blocks, record.fallback,
            )  # fmt: skip
            self._step_count += 1
            self._head["steps"] = self._step_count
        for index, at in self._open.pop(record.step, ()):
            chunk = self._chunks[index, at]
            chunk["start_ns"], chunk["end_ns"] = record.start_ns, record.end_ns
        if len(tokens.slots):
            self._keep(tokens)
        self._version[0] += 1
        self.broken = False

    def _keep(self, tokens: TokenBatch) -> None:
        rows = self._row_of_slot[tokens.slots]
        mine = np.flatnonzero(rows >= 0)
        if not len(mine):
            return
        rows = rows[mine]
        requests = self._requests
        late = np.zeros(len(mine), np.int64)
        if tokens.missed is not None:
            missed = tokens.missed[mine]
            late = (missed > 0).astype(np.int64)
            requests["missed"][rows] += missed
            requests["late"][rows] += late
        at = requests["emissions"][rows]
        self._emissions[rows, at % layout.TOKENS] = 2 * tokens.now_ns + late
        requests["emissions"][rows] = at + 1
        requests["tokens"][rows] = tokens.totals[mine]
        fresh = rows[tokens.gaps_ns[mine] < 0]
        if len(fresh):
            requests["first_ns"][fresh] = tokens.now_ns

    @hookimpl
    def request_finished(self, timeline: RequestTimeline, outcome: Outcome) -> None:
        """A request that is followed has ended."""
        index = self._rows.pop(timeline.request_id, None)
        if index is None or self.broken:
            return
        self._version[0] += 1
        self._alive[index] = False
        if self._row_of_slot[outcome.row.slot] == index:
            self._row_of_slot[outcome.row.slot] = -1
        row = self._requests[index]
        row["state"] = layout.STATES.index(outcome.status)
        row["end_ns"] = outcome.end_ns
        row["missed"] = outcome.missed
        row["late"] = outcome.tokens - outcome.met
        row["tokens"] = outcome.tokens
        self._version[0] += 1

    @hookimpl
    def engine_stopping(self) -> None:
        """Remove the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
