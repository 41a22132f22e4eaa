"""The deciding side of a run: splits the schedule, starts all workers at one moment, gathers what they measured."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from locust.runners import STATE_MISSING, MasterRunner

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.load.under_way import Overdue
from sarathi_plugin.loadtest.assignment import unpack
from sarathi_plugin.loadtest.plan import lost_turn, share_of, to_rows
from sarathi_plugin.loadtest.validity import Asked, ClientState, clock_offset_ns

if TYPE_CHECKING:
    from collections.abc import Callable

    from locust.env import Environment
    from locust.rpc.protocol import Message

    from sarathi_plugin.loadtest.setup import Setup
    from sarathi_plugin.records import RequestTimeline

LEAD_NS = NS_PER_S // 2
POLL_S = 0.25


@dataclass(slots=True)
class _Share:
    """One worker and what is known of its part."""

    client_id: str
    ids: list[str]
    people: list[int]
    ready: bool = False
    sent: int = 0
    overdue: Overdue = field(default_factory=Overdue)
    ahead_ns: int | None = None
    state: ClientState | None = None
    unsent: set[str] = field(default_factory=set)
    lost: bool = False


class Master:
    """Runs one load test at a time over the workers of an environment.

    ``timelines`` grows while it runs, on this process's clock; ``finished`` is set when every request is accounted
    for. listener: told each timeline as it comes in.
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

    def attach(self) -> None:
        """Listen."""
        runner = self._environment.runner
        runner.register_message("sarathi_ready", self._ready)
        runner.register_message("sarathi_results", self._results)
        runner.register_message("sarathi_done", self._done)

    def begin(self, setup: Setup) -> None:
        """Hand out the shares; the workers go as soon as all are ready. At least one must be connected."""
        self._run += 1
        self.setup, self.timelines, self.asked, self.start_ns = setup, {}, {}, 0
        self.stopped = self._go = False
        self.finished.clear()
        clients = self._clients()
        parts = [share_of(setup.trace, i, len(clients)) for i in range(len(clients))]
        self._shares = {
            client: _Share(client, [r.request_id for r in part.requests], setup.people[i :: len(clients)])
            for i, (client, part) in enumerate(zip(clients, parts, strict=True))
        }
        for share, part in zip(list(self._shares.values()), parts, strict=True):
            assignment = setup.assignment(to_rows(part), share.people).model_dump(mode="json")
            data = {"run": self._run, "wall_ns": time.time_ns(), "assignment": assignment}
            self._environment.runner.send_message("sarathi_share", data, share.client_id)
        gevent.spawn(self._watch, self._run)

    def stop(self) -> None:
        """Send no more; what is under way is given up, and what was measured is kept."""
        if not self.finished.is_set():
            self.stopped = True
            self._environment.runner.send_message("sarathi_stop", {})
            if not self._go:
                self.finished.set()

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
            return ["local"]
        return [client.id for client in runner.clients.all if client.state != STATE_MISSING]

    def _mine(self, msg: Message) -> _Share | None:
        """The worker a message of this run is from; its clock is at least as far ahead as the message says."""
        share = self._shares.get(msg.node_id) if msg.data["run"] == self._run else None
        if share is not None:
            ahead_ns = msg.data["wall_ns"] - time.time_ns()
            share.ahead_ns = ahead_ns if share.ahead_ns is None else max(share.ahead_ns, ahead_ns)
        return share

    def _ready(self, environment: Environment, msg: Message) -> None:
        share = self._mine(msg)
        if share is None:
            return
        share.ready = True
        if not self._go and not self.stopped and all(s.ready or s.lost for s in self._shares.values()):
            self._start()

    def _start(self) -> None:
        self._go = True
        start_wall_ns = time.time_ns() + LEAD_NS
        self.start_ns = time.monotonic_ns() + start_wall_ns - time.time_ns()
        data = {"run": self._run, "wall_ns": time.time_ns(), "start_wall_ns": start_wall_ns}
        self._environment.runner.send_message("sarathi_go", data)

    def _results(self, environment: Environment, msg: Message) -> None:
        share = self._mine(msg)
        if share is None:
            return
        share.sent, share.overdue = msg.data["sent"], Overdue(*msg.data["overdue"])
        shift = self.start_ns - msg.data["start_ns"]
        for data in msg.data["timelines"]:
            timeline, self.asked[data["request_id"]] = unpack(data, shift)
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
        offset_ns = clock_offset_ns(share.ahead_ns or 0, msg.data["ahead_ns"])
        share.state = ClientState(msg.data["cpu"], msg.data["clock_step_ns"], offset_ns)
        self._end_if_all()

    def _watch(self, run: int) -> None:
        """Notice workers that disappear: nobody else will report their requests."""
        while run == self._run and not self.finished.is_set():
            alive = set(self._clients())
            for share in self._shares.values():
                share.lost = share.lost or (share.state is None and share.client_id not in alive)
            waiting = [share for share in self._shares.values() if not share.lost]
            if not self._go and waiting and all(share.ready for share in waiting) and not self.stopped:
                self._start()
            self._end_if_all()
            gevent.sleep(POLL_S)

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
            if share.lost:
                charged += [lost_turn(user) for user in share.people]
            for request in charged:
                self._take(self.setup.lost(request, self.start_ns or now_ns, now_ns))

    def state(self) -> dict[str, Any]:
        """How far the run is, for displays."""
        return {
            "requests": len(self.setup.trace.requests) if self.setup else 0,
            "sent": self.sent,
            "ended": len(self.timelines),
            "workers": len(self._shares),
            "running": bool(self._shares) and not self.finished.is_set(),
        }
