"""Requests that wait for their next token: a stall is seen while it lasts, not when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sarathi_plugin.deadlines import DeadlineState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sarathi_plugin.load.stream import CompletionStream


class UnderWay:
    """One request under way. first_ns: time allowed for its first token; tbt_ns: for each further one."""

    def __init__(self, stream: CompletionStream, arrival_ns: int, first_ns: int, tbt_ns: int) -> None:
        self._stream = stream
        self._state = DeadlineState.from_arrival(arrival_ns, first_ns, tbt_ns)
        self._seen = 0

    def overdue_ns(self, now_ns: int) -> int:
        """How long its next token has been due; 0 while it is not."""
        times = self._stream.token_ns
        for time_ns in times[self._seen :]:
            self._state.emit(time_ns)
        self._seen = len(times)
        return max(0, now_ns - self._state.next_deadline_ns)


class Overdue(NamedTuple):
    """Requests whose next token is past its deadline now, and how long the worst of them has waited."""

    requests: int = 0
    worst_ns: int = 0

    def __add__(self, other: object) -> Overdue:
        """Those of two workers together."""
        if not isinstance(other, Overdue):
            return NotImplemented
        return Overdue(self.requests + other.requests, max(self.worst_ns, other.worst_ns))


def overdue(requests: Iterable[UnderWay], now_ns: int) -> Overdue:
    """The overdue ones of these."""
    late = [ns for request in requests if (ns := request.overdue_ns(now_ns))]
    return Overdue(len(late), max(late, default=0))
