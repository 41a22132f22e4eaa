"""The sending side of a run: takes its share from the master, sends it, reports timelines.

On one process the same code runs beside the master's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from locust import User, task

from sarathi_plugin.load.client import StreamingClient
from sarathi_plugin.loadtest.assignment import Assignment, pack
from sarathi_plugin.loadtest.dispatcher import Dispatcher
from sarathi_plugin.loadtest.watch import ClientWatch

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.rpc.protocol import Message

    from sarathi_plugin.core import RequestTimeline
    from sarathi_plugin.load.client import Outcome

REPORT_S = 0.5


class ScheduleUser(User):  # type: ignore[misc]
    """Keeps Locust running while the schedule, which no number of users changes, is sent."""

    @task  # type: ignore[untyped-decorator]
    def wait(self) -> None:
        """Nothing: what is sent does not depend on users."""
        gevent.sleep(1)


class Worker:
    """Answers the master's messages; one of these a process. Call ``attach`` once the runner exists."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._dispatcher: Dispatcher | None = None
        self._outbox: list[dict[str, Any]] = []
        self._finished = Event()
        self._path = ""
        self._ahead_ns = 0

    def attach(self) -> None:
        """Listen."""
        runner = self._environment.runner
        runner.register_message("sarathi_share", self._share, concurrent=True)
        runner.register_message("sarathi_go", self._go, concurrent=True)
        runner.register_message("sarathi_stop", self._stop, concurrent=True)

    def _say(self, kind: str, run: int, **data: Any) -> None:
        self._environment.runner.send_message(kind, {"run": run, "wall_ns": time.time_ns(), **data})

    def _share(self, environment: Environment, msg: Message) -> None:
        self._ahead_ns = time.time_ns() - msg.data["wall_ns"]
        gevent.spawn(self._prepare, Assignment.model_validate(msg.data["assignment"]), msg.data["run"])

    def _prepare(self, assignment: Assignment, run: int) -> None:
        client = StreamingClient(assignment.endpoint(), assignment.targets())
        self._path = "/v1/chat/completions" if assignment.chat else "/v1/completions"
        self._outbox = []
        self._dispatcher = Dispatcher(assignment.workload(), client.send, self._done)
        self._say("sarathi_ready", run)

    def _go(self, environment: Environment, msg: Message) -> None:
        # Machines agree on wall time alone; from here on the run is on this one's monotonic clock.
        self._ahead_ns = min(self._ahead_ns, time.time_ns() - msg.data["wall_ns"])
        start_ns = time.monotonic_ns() + msg.data["start_wall_ns"] - time.time_ns()
        gevent.spawn(self._send, start_ns, msg.data["run"])

    def _send(self, start_ns: int, run: int) -> None:
        dispatcher, watch = self._dispatcher, ClientWatch()
        if dispatcher is None:
            return
        self._finished.clear()
        reporter = gevent.spawn(self._report, watch, start_ns, run)
        dispatcher.run(start_ns)
        self._finished.set()
        reporter.join()
        self._say(
            "sarathi_done",
            run,
            cpu=watch.cpu,
            clock_step_ns=watch.clock_step_ns,
            ahead_ns=self._ahead_ns,
            unsent=dispatcher.unsent,
        )

    def _report(self, watch: ClientWatch, start_ns: int, run: int) -> None:
        """Pass on what is finished, twice a second, and the rest at the end."""
        while True:
            last = self._finished.wait(REPORT_S)
            watch.sample()
            batch, self._outbox = self._outbox, []
            sent = self._dispatcher.sent if self._dispatcher else 0
            self._say("sarathi_results", run, start_ns=start_ns, sent=sent, timelines=batch)
            if last:
                return

    def _done(self, outcome: Outcome) -> None:
        self._outbox.append(pack(outcome.timeline))
        fire(self._environment, self._path, outcome.timeline)

    def _stop(self, environment: Environment, msg: Message) -> None:
        if self._dispatcher is not None:
            gevent.spawn(self._dispatcher.stop)


def fire(environment: Environment, path: str, timeline: RequestTimeline) -> None:
    """Tell Locust's own statistics of a request: time from its intended start to its end, size in tokens."""
    environment.events.request.fire(
        request_type="POST",
        name=f"{path} {timeline.slo_class}",
        response_time=(timeline.end_ns - timeline.arrival_ns) / 1e6,
        response_length=len(timeline.token_ns),
        exception=None if timeline.status == "finished" else RuntimeError(timeline.error),
        context={},
    )
