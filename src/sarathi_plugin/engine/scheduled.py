"""What vLLM made of a plan: the shape of the step, whose prompts are in it, who lost its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sarathi_plugin.core import StepShape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sarathi_plugin.core import StepView
    from sarathi_plugin.engine.admission import Admission
    from sarathi_plugin.engine.prefix import PrefixHits
    from sarathi_plugin.telemetry.table import RequestTable


class Scheduled:
    """Reads one vLLM scheduler after ``schedule``, and keeps the waiting prompts of the table as vLLM's queue is."""

    def __init__(self, scheduler: Any, table: RequestTable, hits: PrefixHits, admission: Admission) -> None:
        self._scheduler = scheduler
        self._table = table
        self._hits = hits
        self._admission = admission
        self._lost_place: list[str] = []
        self.computed: list[tuple[str, int]] = []
        """Prompt chunks of the step scheduled last: (request, tokens)."""

    def shape_of(self, output: Any, view: StepView, under_way: Iterable[str]) -> tuple[StepShape, int]:
        """(what vLLM scheduled, number of prompt chunks in it). under_way: prompts that had a place before."""
        if output.preempted_req_ids:
            # First: one that lost its place before this step may have a new one in it.
            self.note_preempted(output.preempted_req_ids)
        scheduled = output.num_scheduled_tokens
        requests = self._scheduler.requests
        fresh = [data.req_id for data in output.scheduled_new_reqs]
        fresh += output.scheduled_cached_reqs.resumed_req_ids
        tokens = 0
        pairs = 0.0
        self.computed = []
        for request_id in dict.fromkeys([*under_way, *fresh]):
            count = scheduled.get(request_id, 0)
            if not count:
                continue
            before = requests[request_id].num_computed_tokens - count
            self.computed.append((request_id, count))
            tokens += count
            pairs += count * (before + count / 2)
            self._came_in(request_id, view.now_ns)
        chunks = len(self.computed)
        decodes = len(scheduled) - chunks
        return (
            StepShape(
                decodes,
                output.total_num_scheduled_tokens - tokens,
                self._context(scheduled, view, decodes),
                tokens,
                pairs,
            ),
            chunks,
        )

    def _came_in(self, request_id: str, now_ns: int) -> None:
        self.forget(request_id)
        row = self._table.rows.get(request_id)
        if row is not None:
            self._table.prompts.leave(row.slot)
            if row.scheduled_ns is None:
                row.scheduled_ns = now_ns

    def forget(self, request_id: str) -> None:
        """A request waits no longer."""
        self._hits.gone(request_id)
        self._admission.gone(request_id)

    def _context(self, scheduled: dict[str, int], view: StepView, decodes: int) -> int:
        """Tokens before those of the decodes in the step: of all that run, unless vLLM left some out."""
        if decodes == view.decodes or not decodes:
            return view.decode_context if decodes else 0
        requests, chunks = self._scheduler.requests, dict(self.computed)
        return sum(
            requests[name].num_computed_tokens - count
            for name, count in scheduled.items()
            if name not in chunks
        )

    def note_preempted(self, request_ids: Iterable[str]) -> None:
        """Requests that lost their place wait again, with all they have to compute, until they have a place.

        A token that was in flight when its request lost its place still comes: those before are looked at again.
        """
        rows, requests, prompts = self._table.rows, self._scheduler.requests, self._table.prompts
        request_ids = set(request_ids)
        before = [name for name in self._lost_place if name in rows and prompts.waits(rows[name].slot)]
        lost = dict.fromkeys([*before, *sorted(request_ids)])
        self._lost_place = [name for name in lost if name in rows and name in requests]
        for name in self._lost_place:
            row = rows[name]
            row.total_tokens, row.preempted = requests[name].num_tokens, True
            if name in request_ids:
                row.computed_tokens = 0
                self._hits.came(name)
            prompts.wait(row)

    def look_again(self) -> None:
        """Bring those who lost their place up to date."""
        if self._lost_place:
            self.note_preempted(())
