"""Open-loop dispatch on greenlets: every request goes out at its intended time, whatever became of the others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gevent.event import Event
from gevent.pool import Group

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.load.client import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.load.client import Outcome
    from sarathi_plugin.workload.model import ScheduledRequest, Workload

STOP_WAIT_S = 5.0
"""How long stopped requests may take to close their connections."""


class Dispatcher:
    """Sends one workload, one greenlet a request.

    send: takes a request and its intended time, never raises for what a server does. done: told every outcome.
    """

    def __init__(
        self,
        workload: Workload,
        send: Callable[[ScheduledRequest, int], Outcome],
        done: Callable[[Outcome], None],
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._workload = workload
        self._send = send
        self._done = done
        self._clock = clock
        self._stop = Event()
        self._under_way = Group()
        self._begun: set[str] = set()

    def run(self, start_ns: int) -> None:
        """Send everything, offsets counting from ``start_ns``, and wait for all answers; returns early when stopped.

        A request whose time has passed is sent at once: a client that lags shows in its timelines.
        """
        for request in self._workload.requests:
            due_ns = start_ns + request.offset_ns
            while (wait_ns := due_ns - self._clock()) > 0 and not self._stop.is_set():
                self._stop.wait(wait_ns / NS_PER_S)
            if self._stop.is_set():
                break
            self._under_way.spawn(self._one, request, due_ns)
        self._under_way.join()

    def stop(self) -> None:
        """Send no more and give up what is under way: each request ends as a timeline, aborted."""
        self._stop.set()
        self._under_way.kill(Interrupted("the run was stopped"), timeout=STOP_WAIT_S)

    @property
    def sent(self) -> int:
        """How many requests were sent. One whose greenlet was stopped before it ran was not, and nobody tells of it."""
        return len(self._begun)

    @property
    def unsent(self) -> list[str]:
        """Ids of requests that were not sent (yet)."""
        ids = (request.request_id for request in self._workload.requests)
        return [request_id for request_id in ids if request_id not in self._begun]

    def _one(self, request: ScheduledRequest, due_ns: int) -> None:
        self._begun.add(request.request_id)
        self._done(self._send(request, due_ns))
