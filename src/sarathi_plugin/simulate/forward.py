"""Fast-forward: many steps that only decode, taken at once, with the state that one by one they would leave.

While nobody waits, nobody computes a prompt, nobody ends, nobody arrives and KV blocks suffice, the scheduler has
nothing to decide: k steps are k tokens for everybody. Only policies that declare it (``Policy.coasts``) are treated
so; which physical block goes to whom may differ, nothing else does (a test compares).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.core import StepShape
from sarathi_plugin.simulate.requests import TOKEN

if TYPE_CHECKING:
    from sarathi_plugin.simulate.loop import EngineLoop, Flight

LONGEST = 4096
"""Steps taken at once, at most."""


class Coaster:
    """The fast-forward of one loop. steps: how many it has taken."""

    def __init__(self, loop: EngineLoop) -> None:
        self._loop = loop
        self._driver = getattr(loop.scheduler, "sarathi", None)
        self.steps = 0

    def __call__(self, until_ns: float) -> bool:
        """Take the steps that begin before ``until_ns`` and the next event; False when there is none to take."""
        loop = self._loop
        limit = self._most_steps()
        if limit < 2 or (self._driver is not None and not self._driver.may_coast()):
            return False
        event_ns = loop.next_event_ns
        horizon = until_ns if event_ns is None else min(until_ns, event_ns)
        taken = self._take(limit, horizon)
        self.steps += taken
        loop.steps += taken
        return taken > 0

    def _most_steps(self) -> int:
        """For how many steps nobody can end, run out of room, or be joined."""
        loop = self._loop
        scheduler, ahead = loop.scheduler, loop.depth - 1
        running = scheduler.running
        if not running or scheduler.waiting or getattr(scheduler, "kv_holding_waiting", ()) or loop.aborts:
            return 0
        if len(loop.flights) != ahead or scheduler.finished_req_ids:
            return 0
        if not self._steady(running, ahead):
            return 0
        left = min(
            min(r.max_tokens - r.num_output_tokens, scheduler.max_model_len - r.num_tokens) for r in running
        )
        free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
        room = (free - len(running)) * scheduler.block_size // len(running) - 1
        return int(min(left - 1 - ahead, room, LONGEST))

    def _steady(self, running: list[Any], ahead: int) -> bool:
        """Whether all running requests decode, one token a step, in every step in flight too."""
        names = [request.request_id for request in running]
        decoding = self._loop.shapes.decoding
        for request in running:
            behind = request.num_tokens + request.num_output_placeholders - request.num_computed_tokens
            if behind != 1 or request.num_output_placeholders != ahead or not request.num_output_tokens:
                return False
            if request.request_id not in decoding:
                return False
        return all(
            list(flight.output.num_scheduled_tokens) == names and all(map(len, flight.sampled))
            for flight in self._loop.flights
        )

    def _take(self, limit: int, horizon: float) -> int:
        loop = self._loop
        clock, device, running = loop.clock, loop.device, loop.scheduler.running
        rows = len(running)
        context = sum(request.num_computed_tokens for request in running)
        blocks = self._blocks_taken(limit)
        free = loop.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
        host_ns = device.host_ns(rows)
        ends: list[int] = []
        names: list[Any] = [flight.output for flight in loop.flights]
        pending = [flight.end_ns for flight in loop.flights]
        while len(ends) < limit and clock.ns < horizon:
            name: Any = object()
            names.append(name)
            if self._driver is not None:
                self._driver.coast_schedule(name, free - int(blocks[len(ends)]))
            if loop.depth > 1:
                clock.ns += host_ns
            pending.append(device.run(StepShape(rows, rows, context), clock.ns))
            context += rows
            end_ns = max(clock.ns, pending.pop(0))
            clock.ns = end_ns
            if self._driver is not None:
                self._driver.coast_update(names[len(ends)])
            ends.append(end_ns)
            if loop.depth == 1:
                clock.ns += host_ns
        if self._driver is not None:
            self._driver.coast_end()
        if ends:
            self._settle(ends)
            self._rename(names[len(ends) :], pending)
        return len(ends)

    def _blocks_taken(self, steps: int) -> np.ndarray:
        """Blocks the running requests have taken since now when the i-th of so many steps is planned."""
        scheduler = self._loop.scheduler
        size = scheduler.block_size
        used = np.array([request.num_computed_tokens for request in scheduler.running], np.int64)
        # A request whose blocks are full (u = 0 mod size) takes a new one with its very next token.
        first = -used % size
        taken = np.zeros(steps + 1, np.int64)
        for offset, count in zip(*np.unique(first, return_counts=True), strict=True):
            taken[int(offset) + 1 :: size] += count
        found: np.ndarray = np.cumsum(taken)[:steps]
        return found

    def _settle(self, ends: list[int]) -> None:
        """Give scheduler, KV-cache manager and books the tokens of these steps."""
        loop = self._loop
        scheduler, taken = loop.scheduler, len(ends)
        manager = scheduler.kv_cache_manager
        most = [TOKEN] * (taken - 1)
        for request in scheduler.running:
            # The last step is scheduled when all tokens but the one it yields are known.
            if most:
                request.append_output_token_ids(most)
            if manager.allocate_slots(request, taken) is None:
                raise RuntimeError("fast-forward ran out of KV blocks it had counted")
            request.num_computed_tokens += taken
            request.append_output_token_ids(TOKEN)
            if request.num_output_placeholders:
                manager.cache_blocks(request, request.num_computed_tokens - request.num_output_placeholders)
            loop.book.entries[request.request_id].token_ns.extend(ends)
        scheduler.current_step += taken

    def _rename(self, names: list[Any], pending: list[int]) -> None:
        """The steps now in flight are later ones; they look like those that were, so their outputs serve again."""
        flights = self._loop.flights
        moved: list[Flight] = []
        for name, end_ns, flight in zip(names, pending, flights, strict=True):
            moved.append(flight._replace(end_ns=end_ns))
            if self._driver is not None:
                self._driver.coast_rename(name, flight.output)
        flights.clear()
        flights.extend(moved)
