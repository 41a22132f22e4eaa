"""A running server as the judge of a capacity search: open loop over HTTP, judged by the client's own clock."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from sarathi_plugin.address import parts_of
from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.load.client import Endpoint, Outcome, StreamingClient
from sarathi_plugin.load.curve import served_model
from sarathi_plugin.load.dispatch import dispatch_lag_ns, run_open_loop
from sarathi_plugin.load.server import ServerError
from sarathi_plugin.load.stream import CompletionStream
from sarathi_plugin.search.capacity import Verdict
from sarathi_plugin.workload.synthetic import workload_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.load.targets import Targets
    from sarathi_plugin.records import RequestTimeline
    from sarathi_plugin.search.criteria import Criterion
    from sarathi_plugin.search.tally import Tally
    from sarathi_plugin.workload.model import ScheduledRequest
    from sarathi_plugin.workload.trace import Trace

LAG_LIMIT_NS = 20 * NS_PER_MS
"""A run whose client sent its slowest hundredth later than this measured itself: it is marked."""

WARM_UP_REQUESTS, WARM_UP_SEED = 8, 10**6
LONGEST_REQUEST_S = 600.0
A_DAY_NS = 24 * 3600 * NS_PER_S


def endpoint_of(url: str) -> tuple[Endpoint, int]:
    """A server and its model's length. Raises ConfigError when nobody answers there, or not as vLLM does."""
    if parts_of(url) is None:
        raise ConfigError(f"Give the server's address as http://HOST:PORT, not {url!r}.")
    name, length = served_model(url)
    end = Endpoint(url, name, read_timeout_s=LONGEST_REQUEST_S, total_timeout_s=LONGEST_REQUEST_S)
    return end, length


class Stop:
    """Ends a run early: what is not yet sent is then not sent, and counts for nothing, as the run is lost already."""

    def __init__(self, client: StreamingClient, tally: Tally) -> None:
        self._client = client
        self._tally = tally
        self._lock = threading.Lock()
        self.lost = False
        self.unsent: set[str] = set()

    def clock(self) -> int:
        """For the dispatcher alone: once the run is lost nothing is waited for any more."""
        return time.monotonic_ns() + (A_DAY_NS if self.lost else 0)

    def send(self, request: ScheduledRequest, arrival_ns: int) -> Outcome:
        """Send it unless the run is lost."""
        if self.lost:
            return self._leave_out(request, arrival_ns)
        outcome = self._client.send(request, arrival_ns)
        with self._lock:
            if self._tally.ended(outcome.timeline) and self._tally.lost((), time.monotonic_ns()):
                self.lost = True
        return outcome

    def _leave_out(self, request: ScheduledRequest, arrival_ns: int) -> Outcome:
        with self._lock:
            self.unsent.add(request.request_id)
        timeline = self._client.targets.timeline(
            request,
            CompletionStream(),
            arrival_ns=arrival_ns,
            sent_ns=arrival_ns,
            end_ns=arrival_ns,
            status="aborted",
            error="not sent: the run was lost",
        )
        return Outcome(request, timeline)


class LiveJudge:
    """``judge(rate, seed)``: the workload's requests at that rate, sent to one server; waits for every answer.

    trace_at(rate, seed): the traffic. What a client cannot see is worked out as ``scheduling_delay_ns`` says.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model_length: int,
        targets: Targets,
        trace_at: Callable[[float | None, int], Trace],
        criterion: Criterion,
    ) -> None:
        self._client = StreamingClient(endpoint, targets)
        self._length = model_length
        self._targets = targets
        self._trace_at = trace_at
        self._criterion = criterion
        self.timelines: dict[tuple[float, int], tuple[RequestTimeline, ...]] = {}
        """Of runs that passed, by rate and seed."""

    def warm_up(self, rate: float) -> None:
        """A few requests that nobody judges: first steps of a server are slow. Raises ConfigError when all fail."""
        trace = self._trace_at(rate, WARM_UP_SEED)
        few = type(trace)(trace.name, trace.requests[:WARM_UP_REQUESTS])
        result = run_open_loop(workload_of(few.checked(self._length), WARM_UP_SEED), self._client.send)
        if all(timeline.status != "finished" for timeline in result.timelines):
            raise ConfigError(
                f"{self._client.endpoint.url} refuses the workload: {result.timelines[0].error or 'no answer'}."
            )

    def __call__(self, rate: float, seed: int) -> Verdict:
        """One run."""
        trace = self._trace_at(rate, seed).checked(self._length)
        tally = self._criterion.tally(trace, self._targets)
        stop = Stop(self._client, tally)
        result = run_open_loop(workload_of(trace, seed), stop.send, clock=stop.clock)
        done = tuple(t for t in result.timelines if t.request_id not in stop.unsent)
        self._check_alive(done)
        if stop.lost:
            return Verdict(rate, False, tally.best_share, None, tally.reason, marks_of(done))
        verdict = self._criterion.verdict(rate, done)
        if verdict.passed:
            self.timelines[rate, seed] = done
        return Verdict(
            rate, verdict.passed, verdict.fluid_share, verdict.median_delay_ns, verdict.reason, marks_of(done)
        )

    def _check_alive(self, done: tuple[RequestTimeline, ...]) -> None:
        """Raise ServerError when nobody was there to answer: that says nothing of capacity."""
        if done and all(t.status == "error" and t.error.startswith("connect") for t in done):
            raise ServerError(
                f"The server at {self._client.endpoint.url} does not answer any more: {done[0].error}."
            )


def marks_of(timelines: tuple[RequestTimeline, ...]) -> tuple[str, ...]:
    """Why a run should not be trusted; empty when nothing is known against it."""
    lag_ns = dispatch_lag_ns(timelines)
    return (f"the client sent up to {lag_ns / NS_PER_MS:.0f} ms late",) if lag_ns > LAG_LIMIT_NS else ()
