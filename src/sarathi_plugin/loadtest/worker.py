"""The sending side of a run: takes its share from the master, sends it, reports timelines.

On one process the same code runs beside the master's.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from locust import User, task

from sarathi_plugin import __version__
from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.load.client import StreamingClient
from sarathi_plugin.load.under_way import Overdue, overdue
from sarathi_plugin.loadtest.assignment import Assignment, pack
from sarathi_plugin.loadtest.closed import ClosedLoop
from sarathi_plugin.loadtest.dispatcher import Dispatcher
from sarathi_plugin.loadtest.target import describe
from sarathi_plugin.loadtest.watch import ClientWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from locust.env import Environment
    from locust.rpc.protocol import Message

    from sarathi_plugin.load.client import Outcome
    from sarathi_plugin.loadtest.validity import Asked
    from sarathi_plugin.records import RequestTimeline

REPORT_S = 0.5
QUIT_WAIT_S = 10.0


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
        self._client: StreamingClient | None = None
        self._dispatcher: Dispatcher | ClosedLoop | None = None
        self._outbox: list[dict[str, Any]] = []
        self._finished = Event()
        self._path = ""
        self._over = Event()
        self._over.set()

    def attach(self) -> None:
        """Listen."""
        runner = self._environment.runner
        runner.register_message("sarathi_ask", self._ask, concurrent=True)
        runner.register_message("sarathi_share", self._share, concurrent=True)
        runner.register_message("sarathi_go", self._go, concurrent=True)
        runner.register_message("sarathi_stop", self._stop, concurrent=True)
        self._environment.events.quitting.add_listener(self._quit)

    def _say(self, kind: str, run: int, **data: Any) -> None:
        self._environment.runner.send_message(kind, {"run": run, **data})

    def _ask(self, environment: Environment, msg: Message) -> None:
        """Tell this machine's time, and what runs here."""
        asked = {"asked_ns": msg.data["asked_ns"], "here_ns": time.monotonic_ns()}
        self._say("sarathi_answer", msg.data["run"], **asked, version=__version__)

    def _share(self, environment: Environment, msg: Message) -> None:
        gevent.spawn(self._prepare, Assignment.model_validate(msg.data["assignment"]), msg.data["run"])

    def _prepare(self, assignment: Assignment, run: int) -> None:
        try:
            # Address, way and key may be good on the master's machine and not on this one.
            describe(assignment.url, assignment.model)
        except ConfigError as error:
            self._say("sarathi_refused", run, reason=str(error))
            return
        self._client = client = StreamingClient(assignment.endpoint(), assignment.targets())
        self._path = "/v1/chat/completions" if assignment.chat else "/v1/completions"
        self._outbox = []
        self._dispatcher = dispatcher_of(assignment, client, self._done)
        gc.collect()
        gc.freeze()  # prompts stay: no collection in the middle of a run has to walk over them
        self._say("sarathi_ready", run)

    def _go(self, environment: Environment, msg: Message) -> None:
        gevent.spawn(self._send, msg.data["start_ns"], msg.data["run"])

    def _send(self, start_ns: int, run: int) -> None:
        dispatcher, watch = self._dispatcher, ClientWatch()
        if dispatcher is None:
            return
        self._finished.clear()
        self._over.clear()
        reporter = gevent.spawn(self._report, watch, run)
        dispatcher.run(start_ns)
        self._finished.set()
        reporter.join()
        self._say(
            "sarathi_done",
            run,
            cpu=watch.cpu,
            clock_step_ns=watch.clock_step_ns,
            unsent=list(dispatcher.unsent),
            resent=self._client.resent if self._client else 0,
        )
        self._over.set()

    def _report(self, watch: ClientWatch, run: int) -> None:
        """Pass on what is finished, twice a second, and the rest at the end."""
        while True:
            last = self._finished.wait(REPORT_S)
            watch.sample()
            batch, self._outbox = self._outbox, []
            sent = self._dispatcher.sent if self._dispatcher else 0
            late = (
                overdue(list(self._client.under_way.values()), time.monotonic_ns())
                if self._client
                else Overdue()
            )
            self._say("sarathi_results", run, sent=sent, timelines=batch, overdue=list(late))
            if last:
                return

    def _done(self, outcome: Outcome, asked: Asked) -> None:
        self._outbox.append(pack(outcome.timeline, asked))
        fire(self._environment, self._path, outcome.timeline)

    def _stop(self, environment: Environment, msg: Message) -> None:
        if self._dispatcher is not None:
            gevent.spawn(self._dispatcher.stop)

    def _quit(self, **_: Any) -> None:
        """This process ends (Ctrl-C): report what was measured first."""
        if self._dispatcher is not None and not self._over.is_set():
            gevent.spawn(self._dispatcher.stop)
            self._over.wait(QUIT_WAIT_S)


def dispatcher_of(
    assignment: Assignment, client: StreamingClient, done: Callable[[Outcome, Asked], None]
) -> Dispatcher | ClosedLoop:
    """What sends an assignment; prompts are made here."""

    def tell(outcome: Outcome) -> None:
        done(outcome, assignment.asked(outcome.request))

    crowd = assignment.crowd
    if crowd is None:
        return Dispatcher(assignment.workload(), client.send, tell)
    return ClosedLoop(assignment.users(crowd), round(crowd.duration_s * NS_PER_S), client.send, tell)


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
