"""The engine's loop on virtual time: ``EngineCore.step`` and ``step_with_batch_queue`` of vLLM, step for step.

What differs from a server: nothing executes, a Device says when a step would be done, and requests come from a trace.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput
from vllm.v1.request import RequestStatus

from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.simulate.requests import TOKEN
from sarathi_plugin.simulate.shape import ShapeReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.simulate.book import Book, Entry
    from sarathi_plugin.simulate.clock import VirtualClock
    from sarathi_plugin.simulate.device import Device

PAUSE_NS = NS_PER_MS
"""``EngineCore`` sleeps so long after a step that carried nothing."""


class Flight(NamedTuple):
    """A step between ``schedule`` and ``update_from_output``."""

    end_ns: int
    output: Any
    sampled: list[list[int]]


class EngineLoop:
    """One engine core. depth: steps in flight at most (1: the plain loop).

    accepted(drafts): how many of a request's drafted tokens the model accepts. frontend_ns: from arrival to the
    engine's queue. coast(until): takes many steps at once where it may (see ``forward``). watch(entry): called with a
    request that ended, and with None at every turn; False stops the loop.
    """

    def __init__(
        self,
        scheduler: Any,
        clock: VirtualClock,
        device: Device,
        book: Book,
        *,
        depth: int,
        accepted: Callable[[int], int],
        frontend_ns: int = 0,
    ) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self.device = device
        self.book = book
        self.depth = depth
        self.shapes = ShapeReader()
        self.flights: deque[Flight] = deque()
        self.steps = self.preemptions = self.idle_ns = self.aborts = 0
        self.coast: Callable[[float], bool] = lambda _until_ns: False
        self.watch: Callable[[Entry | None], bool] = lambda _entry: True
        self._accepted = accepted
        self._frontend_ns = frontend_ns
        self._events: list[tuple[int, int, str, Any]] = []
        self._count = 0

    # -- requests ---------------------------------------------------------------------------------------------

    def submit(self, entry: Entry, request: Any) -> None:
        """Queue a request for its arrival, and its client's hanging up if it will."""
        self._push(entry.arrival_ns + self._frontend_ns, entry.asked.request_id, request)
        if entry.asked.abort_ns is not None:
            self._push(entry.arrival_ns + entry.asked.abort_ns, entry.asked.request_id, None)

    def _push(self, at_ns: int, name: str, request: Any) -> None:
        self._count += 1
        self.aborts += request is None
        heapq.heappush(self._events, (at_ns, self._count, name, request))

    @property
    def next_event_ns(self) -> int | None:
        """When the next request arrives or leaves."""
        return self._events[0][0] if self._events else None

    def _deliver(self) -> None:
        """What has come in by now: the engine looks between steps only."""
        while self._events and self._events[0][0] <= self.clock.ns:
            _, _, name, request = heapq.heappop(self._events)
            if request is None:
                self.aborts -= 1
                self._abort(name)
            else:
                self.scheduler.add_request(request)

    def _deliver_aborts(self) -> None:
        """Aborts are also looked for while a step executes."""
        if not self.aborts:
            return
        due = [event for event in self._events if event[3] is None and event[0] <= self.clock.ns]
        for event in sorted(due):
            self._events.remove(event)
            self.aborts -= 1
            self._abort(event[2])
        if due:
            heapq.heapify(self._events)

    def _abort(self, name: str) -> None:
        if name in self.scheduler.requests:
            self._close(name, "aborted")
        self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)

    def _close(self, name: str, status: Any) -> None:
        entry = self.book.entries[name]
        entry.end_ns, entry.status = self.clock.ns, status
        self.shapes.forget(name)

    # -- turns ------------------------------------------------------------------------------------------------

    def advance(self, until_ns: float) -> bool:
        """Turn until the clock reaches ``until_ns`` or nothing is left; False once the watch says stop."""
        while self.clock.ns < until_ns and self._turn(until_ns):
            if not self.watch(None):
                return False
        return True

    def _turn(self, until_ns: float) -> bool:
        self._deliver()
        if not self.flights and not self.scheduler.has_requests():
            return self._idle(until_ns)
        if self.coast(until_ns):
            return True
        executed = False
        if self.scheduler.has_requests():
            executed = self._schedule()
            if len(self.flights) < self.depth and (executed or self.scheduler.has_requests()):
                self._pause(executed=executed)
                return True
        self._update()
        self._pause(executed=executed)
        return True

    def _idle(self, until_ns: float) -> bool:
        at_ns = self.next_event_ns
        if at_ns is None or at_ns >= until_ns:
            return False
        self.idle_ns += at_ns - self.clock.ns
        self.clock.ns = at_ns
        return True

    def _pause(self, *, executed: bool) -> None:
        if not executed and self.scheduler.has_requests():
            self.clock.ns += PAUSE_NS

    def _schedule(self) -> bool:
        """Schedule and submit one step; whether it carries anything."""
        scheduler, clock = self.scheduler, self.clock
        output = scheduler.schedule()
        carried = self.shapes.read(output, scheduler.requests)
        self.preemptions += len(output.preempted_req_ids or ())
        for data in output.scheduled_new_reqs:
            entry = self.book.entries[data.req_id]
            if entry.scheduled_ns is None:
                entry.scheduled_ns = clock.ns
        if self.depth > 1:
            clock.ns += self.device.host_ns(len(scheduler.running))
        self.steps += 1
        empty = carried.shape.kind == "empty"
        end_ns = clock.ns if empty else self.device.run(carried.shape, clock.ns)
        self.flights.append(Flight(end_ns, output, self._sample(output, carried.due)))
        return not empty

    def _sample(self, output: Any, due: list[bool]) -> list[list[int]]:
        drafts = output.scheduled_spec_decode_tokens
        if not drafts:
            return [[TOKEN] if yields else [] for yields in due]
        names = output.num_scheduled_tokens
        accepted = [self._accepted(len(drafts.get(name, ()))) for name in names]
        return [[TOKEN] * (1 + count) if yields else [] for count, yields in zip(accepted, due, strict=True)]

    def _update(self) -> None:
        """The oldest step is done: its tokens."""
        flight = self.flights.popleft()
        clock = self.clock
        clock.ns = max(clock.ns, flight.end_ns)
        self._deliver_aborts()
        names = list(flight.output.num_scheduled_tokens)
        result = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: i for i, name in enumerate(names)},
            sampled_token_ids=flight.sampled,
        )
        entries = self.book.entries
        for outputs in self.scheduler.update_from_output(flight.output, result).values():
            for out in outputs.outputs:
                entries[out.request_id].token_ns.extend([clock.ns] * len(out.new_token_ids))
                if out.finish_reason is not None:
                    self._close(out.request_id, "finished")
                    self.watch(entries[out.request_id])
        self._draft()
        if self.depth == 1 and names:
            clock.ns += self.device.host_ns(len(self.scheduler.running))

    def _draft(self) -> None:
        count = self.scheduler.num_spec_tokens
        if count and self.depth == 1:  # run-ahead drafts on the worker
            names = [r.request_id for r in self.scheduler.running if not r.is_prefill_chunk]
            self.scheduler.update_draft_token_ids(DraftTokenIds(names, [[TOKEN] * count for _ in names]))
