"""The deciding side of a run: splits the schedule, starts all workers at one moment, gathers what they measured."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from locust.runners import STATE_MISSING, MasterRunner

from sarathi_plugin import __version__
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.load.under_way import Overdue
from sarathi_plugin.loadtest.assignment import unpack
from sarathi_plugin.loadtest.clocks import EXCHANGES, ClockBounds
from sarathi_plugin.loadtest.plan import lost_turn, share_of, to_rows
from sarathi_plugin.loadtest.validity import Asked, ClientState

if TYPE_CHECKING:
    from collections.abc import Callable

    from locust.env import Environment
    from locust.rpc.protocol import Message

    from sarathi_plugin.loadtest.assignment import Assignment
    from sarathi_plugin.loadtest.setup import Setup
    from sarathi_plugin.records import RequestTimeline

LEAD_NS = NS_PER_S // 2
ANSWER_WAIT_S = 15.0
"""How long a worker may take to answer a first question."""
POLL_S = 0.25
LOCAL = "local"
"""Locust's name for a worker in the master's own process."""


@dataclass(slots=True)
class _Share:
    """One worker and what is known of its part."""

    client_id: str
    ids: list[str]
    assignment: Assignment
    clock: ClockBounds = field(default_factory=ClockBounds)
    ready: bool = False
    sent: int = 0
    overdue: Overdue = field(default_factory=Overdue)
    state: ClientState | None = None
    unsent: set[str] = field(default_factory=set)
    lost: bool = False

    @property
    def name(self) -> str:
        """The machine it runs on: Locust's ids begin with its name."""
        return self.client_id.rpartition("_")[0] or self.client_id


class Master:
    """Runs one load test at a time over the workers of an environment.

    ``timelines`` grows while it runs, on this process's clock; ``finished`` is set when every request is accounted
    for, or when the run cannot begin: then ``problem`` says why. listener: told each timeline as it comes in.
    """

    def __init__(
        self, environment: Environment, listener: Callable[[RequestTimeline], None] = lambda _: None
    ) -> None:
        self._environment = environment
        self._listener = listener
        self._shares: dict[str, _Share] = {}
        self._run = 0
        self._go = False
        self.setup: Setup | None = None
        self.timelines: dict[str, RequestTimeline] = {}
        self.asked: dict[str, Asked] = {}
        self.start_ns = 0
        self.finished = Event()
        self.stopped = False
        self.problem = ""

    def attach(self) -> None:
        """Listen."""
        runner = self._environment.runner
        runner.register_message("sarathi_answer", self._answer)
        runner.register_message("sarathi_ready", self._ready)
        runner.register_message("sarathi_refused", self._refused)
        runner.register_message("sarathi_results", self._results)
        runner.register_message("sarathi_done", self._done)

    def begin(self, setup: Setup) -> None:
        """Compare clocks with the workers and hand out the shares; they go as soon as all are ready.

        At least one must be connected.
        """
        self._run += 1
        self.setup, self.timelines, self.asked, self.start_ns = setup, {}, {}, 0
        self.stopped, self._go, self.problem = False, False, ""
        self.finished.clear()
        clients = self._clients()
        self._shares = {}
        for i, client in enumerate(clients):
            part = share_of(setup.trace, i, len(clients))
            assignment = setup.assignment(to_rows(part), setup.people[i :: len(clients)])
            self._shares[client] = _Share(client, [r.request_id for r in part.requests], assignment)
        for share in list(self._shares.values()):
            self._ask(share)
        gevent.spawn(self._watch, self._run)

    def stop(self) -> None:
        """Send no more; what is under way is given up, and what was measured is kept."""
        self._find_lost()
        self._end_if_all()  # Locust stops by itself when its last worker is gone: nobody wanted that
        if not self.finished.is_set():
            self.stopped = True
            self._tell_all("sarathi_stop")
            if not self._go:
                self.finished.set()

    def is_stranger(self, client_id: str) -> bool:
        """Whether a run is under way in which this worker has no part."""
        return self.running and client_id not in self._shares

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return bool(self._shares) and not self.finished.is_set()

    @property
    def sent(self) -> int:
        """Requests sent so far, as far as the workers have told."""
        return sum(share.sent for share in self._shares.values())

    @property
    def overdue(self) -> Overdue:
        """Requests past their deadline right now, as far as the workers have told."""
        return sum((share.overdue for share in self._shares.values()), Overdue())

    @property
    def clients(self) -> list[ClientState]:
        """How each worker that ended fared."""
        return [share.state for share in self._shares.values() if share.state is not None]

    @property
    def lost_workers(self) -> int:
        """Workers that disappeared during the run."""
        return sum(share.lost for share in self._shares.values())

    def _clients(self) -> list[str]:
        runner = self._environment.runner
        if not isinstance(runner, MasterRunner):
            return [LOCAL]
        return [client.id for client in runner.clients.all if client.state != STATE_MISSING]

    def _tell(self, share: _Share, kind: str, **data: Any) -> None:
        self._environment.runner.send_message(kind, {"run": self._run, **data}, share.client_id)

    def _tell_all(self, kind: str) -> None:
        for share in self._shares.values():
            self._tell(share, kind)

    def _mine(self, msg: Message) -> _Share | None:
        """The worker a message of this run is from; None when nobody waits for it."""
        return self._shares.get(msg.node_id) if self.running and msg.data["run"] == self._run else None

    def _ask(self, share: _Share) -> None:
        """Ask a worker for its time."""
        self._tell(share, "sarathi_ask", asked_ns=time.monotonic_ns())

    def _answer(self, environment: Environment, msg: Message) -> None:
        back_ns = time.monotonic_ns()
        share = self._mine(msg)
        if share is None:
            return
        if msg.data["version"] != __version__:
            theirs = msg.data["version"]
            self._refuse(f"Worker {share.name} has sarathi-plugin {theirs}, the master {__version__}.")
            return
        share.clock.add(msg.data["asked_ns"], msg.data["here_ns"], back_ns)
        if share.clock.exchanges < EXCHANGES:
            self._ask(share)
        else:
            self._tell(share, "sarathi_share", assignment=share.assignment.model_dump(mode="json"))

    def _refused(self, environment: Environment, msg: Message) -> None:
        share = self._mine(msg)
        if share is not None:
            where = "" if share.client_id == LOCAL else f"Worker {share.name}: "
            self._refuse(where + msg.data["reason"])

    def _refuse(self, sentence: str) -> None:
        """End a run that has not begun."""
        self.problem = sentence
        self._tell_all("sarathi_stop")
        self.finished.set()

    def _ready(self, environment: Environment, msg: Message) -> None:
        share = self._mine(msg)
        if share is not None:
            share.ready = True
            self._start_if_all()

    def _start_if_all(self) -> None:
        waiting = [share for share in self._shares.values() if not share.lost]
        if self._go or self.stopped or not waiting or not all(share.ready for share in waiting):
            return
        self._go = True
        self.start_ns = time.monotonic_ns() + LEAD_NS
        for share in waiting:
            self._tell(share, "sarathi_go", start_ns=self.start_ns + share.clock.ahead_ns)

    def _results(self, environment: Environment, msg: Message) -> None:
        share = self._mine(msg)
        if share is None:
            return
        share.sent, share.overdue = msg.data["sent"], Overdue(*msg.data["overdue"])
        for data in msg.data["timelines"]:
            timeline, self.asked[data["request_id"]] = unpack(data, -share.clock.ahead_ns)
            self._take(timeline)
            gevent.sleep(0)  # on one process streams are being timed meanwhile

    def _take(self, timeline: RequestTimeline) -> None:
        self.timelines[timeline.request_id] = timeline
        self._listener(timeline)

    def _done(self, environment: Environment, msg: Message) -> None:
        share = self._mine(msg)
        if share is None:
            return
        share.unsent = set(msg.data["unsent"])
        data = msg.data
        share.state = ClientState(data["cpu"], data["clock_step_ns"], share.clock.error_ns, data["resent"])
        share.lost = False  # it was out of reach for a while, and nothing is missing
        self._end_if_all()

    def _watch(self, run: int) -> None:
        """Notice workers that disappear, whose requests nobody else will report, and those that never speak."""
        waited_s = 0.0
        while run == self._run and not self.finished.is_set():
            self._find_lost()
            self._start_if_all()
            self._end_if_all()
            gevent.sleep(POLL_S)
            waited_s += POLL_S
            silent = [s.name for s in self._shares.values() if not s.lost and not s.clock.exchanges]
            if silent and waited_s >= ANSWER_WAIT_S and run == self._run and not self.finished.is_set():
                self._refuse(
                    f"Worker {silent[0]} does not answer: start it with the same locustfile, "
                    f"under sarathi-plugin {__version__}."
                )

    def _find_lost(self) -> None:
        alive = set(self._clients())
        for share in self._shares.values():
            if share.state is None and share.client_id not in alive:
                share.lost, share.overdue = True, Overdue()

    def _end_if_all(self) -> None:
        if self.finished.is_set() or not all(s.lost or s.state is not None for s in self._shares.values()):
            return
        self._charge_lost()
        self.finished.set()

    def _charge_lost(self) -> None:
        """Requests that were to be sent and that nobody reported: failed, never left out."""
        if self.setup is None:
            return
        requests = {r.request_id: r for r in self.setup.trace.requests}
        now_ns = time.monotonic_ns()
        for share in self._shares.values():
            missing = set(share.ids).difference(self.timelines, share.unsent)
            charged = [requests[request_id] for request_id in share.ids if request_id in missing]
            if self.stopped:  # what was not due by then is unsent, whoever should have sent it
                charged = [r for r in charged if self.start_ns + r.offset_ns <= now_ns]
            if share.lost:
                charged += [lost_turn(user) for user in share.assignment.people]
            for request in charged:
                self._take(self.setup.lost(request, self.start_ns or now_ns, now_ns))

    def state(self) -> dict[str, Any]:
        """How far the run is, for displays."""
        return {
            "requests": len(self.setup.trace.requests) if self.setup else 0,
            "sent": self.sent,
            "ended": len(self.timelines),
            "workers": len(self._shares),
            "running": self.running,
        }
