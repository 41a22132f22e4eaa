"""Requests that come and go: their SLO class, their arrival on the monotonic clock, and what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.engine.parts import status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sarathi_plugin.core import SloClass
    from sarathi_plugin.engine.log import StepLog
    from sarathi_plugin.engine.parts import Parts
    from sarathi_plugin.records import RequestStatus


class Watcher(Protocol):
    """Who has to know at once."""

    def came(self, request_id: str) -> None:
        """A tracked request waits."""

    def left(self, request_id: str) -> None:
        """One is tracked no longer."""


class Roster:
    """Of one scheduler. failed(doing): reports a failure of ours. No method raises.

    A streaming session (vLLM's resumable requests) is tracked turn by turn: what its user leaves unsaid for a while is
    nobody's delay. A turn begins when its input comes, or when the turn before it ends, if that is later.
    """

    def __init__(
        self, scheduler: Any, parts: Parts, log: StepLog, watcher: Watcher, failed: Callable[[str], None]
    ) -> None:
        self._scheduler = scheduler
        self._table = parts.table
        self._buffer = parts.buffer
        self._default_class = parts.default_class
        self._classes = {slo.name: slo for slo in parts.table.classes}
        self._clock = parts.clock
        self._journal = parts.journal
        self._live = parts.live
        self._log = log
        self._watcher = watcher
        self._failed = failed

    def add(self, request: Any) -> None:
        """A request arrived, or more input for a session."""
        try:
            if request.request_id in self._table.rows or request.sampling_params is None:
                return
            session = self._scheduler.requests.get(request.request_id)
            ends = session is not None and not request.resumable
            if ends or (session is not None and session.status.name != "WAITING_FOR_STREAMING_REQ"):
                return
            now, wall = self._clock.monotonic_ns(), self._clock.wall()
            if self._journal:
                self._journal.arrived(request, now, wall)
            waited = max(0.0, wall - request.arrival_time)
            self._track(request, now - int(waited * NS_PER_S), request.num_prompt_tokens)
        except Exception:
            self._failed("tracking a new request")

    def _track(self, request: Any, arrival_ns: int, prompt_tokens: int) -> None:
        row = self._table.add(
            request.request_id, self._class_of(request), arrival_ns, prompt_tokens, request.max_tokens
        )
        if row is None:
            self._buffer.add("untracked_requests", 1)
            return
        self._watcher.came(request.request_id)
        if self._live:
            self._live.arrived(row)
            self._log.later(self._live.binder(row))

    def _class_of(self, request: Any) -> SloClass:
        name = (request.sampling_params.extra_args or {}).get("slo_class")
        if name is None:
            return self._default_class
        found = self._classes.get(name) if isinstance(name, str) else None
        if found is None:
            self._buffer.add("unknown_slo_class", 1)
            return self._default_class
        return found

    def ended(self, out: Any, now_ns: int) -> None:
        """vLLM's last output of a request, or of a turn."""
        self._leave(out.request_id, status_of(str(out.finish_reason)), now_ns)
        try:
            request = self._scheduler.requests.get(out.request_id)
            if getattr(request, "resumable", False) and request.status.name == "WAITING":
                self._track(request, now_ns, request.num_tokens - request.num_computed_tokens)
        except Exception:
            self._failed("tracking the next turn of a session")

    def finished(self, request_ids: Iterable[str] | None, status: Any) -> None:
        """Requests ended from outside: aborted, failed, or everything at once (None). status: vLLM's."""
        now = self._clock.monotonic_ns()
        if self._journal:
            self._journal.left(request_ids, status, now)
        if request_ids is None:
            request_ids = list(self._table.rows)
        for request_id in request_ids:
            self._leave(request_id, status_of(str(status.get_finished_reason(status))), now)

    def _leave(self, request_id: str, status: RequestStatus, now_ns: int) -> None:
        try:
            outcome = self._table.remove(request_id, status, now_ns)
            if outcome is not None:
                self._watcher.left(request_id)
                self._log.request(self._table.timeline(outcome), outcome)
        except Exception:
            self._failed("tracking the end of a request")
