"""Open-loop dispatch: every request goes out at its intended time, whatever became of the others."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sarathi_plugin.load.client import Outcome
    from sarathi_plugin.records import RequestTimeline
    from sarathi_plugin.workload.model import ScheduledRequest, Workload

    Send = Callable[[ScheduledRequest, int], Outcome]

LEAD_NS = NS_PER_S // 20
"""Time between the decision to start and the first send: threads and sockets are ready by then."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    total: int
    started: int
    finished: int
    failed: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """All outcomes of a run, in the order of the workload. start_ns: the moment that offsets count from."""

    start_ns: int
    outcomes: tuple[Outcome, ...]

    @property
    def timelines(self) -> tuple[RequestTimeline, ...]:
        """The timeline of every request."""
        return tuple(outcome.timeline for outcome in self.outcomes)

    @property
    def dispatch_lag_p99_ns(self) -> int:
        """See ``dispatch_lag_ns``."""
        return dispatch_lag_ns(self.timelines)


def dispatch_lag_ns(timelines: Iterable[RequestTimeline], percentile: float = 99.0) -> int:
    """How late requests really went out; a client that lags measures itself. 0 without sent requests."""
    lags = [t.sent_ns - t.arrival_ns for t in timelines if t.sent_ns is not None]
    return int(np.percentile(lags, percentile)) if lags else 0


class _Run:
    """State that the threads of one run share."""

    def __init__(self, send: Send, total: int, progress: Callable[[Progress], None] | None) -> None:
        self.send = send
        self.lock = threading.Lock()
        self.outcomes: dict[str, Outcome] = {}
        self.bugs: list[BaseException] = []
        self._report = progress
        self._total, self._started, self._failed = total, 0, 0

    def one(self, request: ScheduledRequest, arrival_ns: int) -> None:
        """Body of a request's thread."""
        try:
            self._note(started=1)
            outcome = self.send(request, arrival_ns)
            with self.lock:
                self.outcomes[request.request_id] = outcome
            self._note(failed=int(outcome.timeline.status != "finished"))
        except (
            BaseException
        ) as error:  # `send` turns failures into timelines; this is a bug, raised at the end
            with self.lock:
                self.bugs.append(error)

    def _note(self, started: int = 0, failed: int = 0) -> None:
        with self.lock:
            self._started += started
            self._failed += failed
            if self._report is not None:
                self._report(Progress(self._total, self._started, len(self.outcomes), self._failed))


def run_open_loop(
    workload: Workload,
    send: Send,
    *,
    progress: Callable[[Progress], None] | None = None,
    clock: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> RunResult:
    """Send a workload, one thread a request, and wait for all of it.

    send: takes a request and its intended send time (nanoseconds on ``clock``), never raises for what a server does.
    progress: called under a lock from the request threads whenever a request starts or ends; must be quick.
    Raises what a ``send`` raised, once all are through.
    """
    run = _Run(send, len(workload.requests), progress)
    start_ns = clock() + LEAD_NS
    threads = []
    for request in workload.requests:
        due_ns = start_ns + request.offset_ns
        while (wait_ns := due_ns - clock()) > 0:
            sleep(wait_ns / NS_PER_S)
        thread = threading.Thread(
            target=run.one, args=(request, due_ns), name=request.request_id, daemon=True
        )
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()
    if run.bugs:
        raise run.bugs[0]
    return RunResult(start_ns, tuple(run.outcomes[request.request_id] for request in workload.requests))
