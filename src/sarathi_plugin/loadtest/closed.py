"""Closed-loop dispatch on greenlets: each user sends, waits for the answer, thinks, and goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gevent.event import Event
from gevent.pool import Group

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.load.client import Interrupted
from sarathi_plugin.loadtest.dispatcher import STOP_WAIT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sarathi_plugin.load.client import Outcome
    from sarathi_plugin.loadtest.person import Person
    from sarathi_plugin.workload.model import ScheduledRequest


class ClosedLoop:
    """One greenlet a user, for ``duration_ns``; turns under way then are waited for.

    A turn's intended time is when the user had thought enough, so a client that lags shows here, too. Answers that are
    slow make for fewer requests: that is what a closed loop is.
    """

    unsent: tuple[str, ...] = ()
    """Nothing is promised beforehand, so nothing remains unsent."""

    def __init__(
        self,
        people: Sequence[Person],
        duration_ns: int,
        send: Callable[[ScheduledRequest, int], Outcome],
        done: Callable[[Outcome], None],
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._people = people
        self._duration_ns = duration_ns
        self._send, self._done, self._clock = send, done, clock
        self._stop = Event()
        self._under_way = Group()
        self.sent = 0

    def run(self, start_ns: int) -> None:
        """Let all users begin and wait until the last has ended; returns early when stopped."""
        for person in self._people:
            self._under_way.spawn(self._live, person, start_ns)
        self._under_way.join()

    def stop(self) -> None:
        """Send no more and give up what is under way: each request ends as a timeline, aborted."""
        self._stop.set()
        self._under_way.kill(Interrupted("the run was stopped"), timeout=STOP_WAIT_S)

    def _live(self, person: Person, start_ns: int) -> None:
        now_ns = start_ns
        try:
            while not self._stop.is_set():
                think_ns, request = person.plan()
                due_ns = now_ns + think_ns
                if due_ns >= start_ns + self._duration_ns:
                    return
                while (wait_ns := due_ns - self._clock()) > 0 and not self._stop.is_set():
                    self._stop.wait(wait_ns / NS_PER_S)
                if self._stop.is_set():
                    return
                self.sent += 1
                outcome = self._send(request, due_ns)
                self._done(outcome)
                person.hear(outcome)
                now_ns = outcome.timeline.end_ns
        except Interrupted:
            pass  # stopped between two turns; within one it ends as a timeline
