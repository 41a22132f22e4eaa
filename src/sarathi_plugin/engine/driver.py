"""The plugin's part of every engine step: plan before it, measure after it, and never let a failure through."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.core import NS_PER_S, RequestStatus, SloClass, StepPlan, StepRecord
from sarathi_plugin.engine.adapt import Adapter
from sarathi_plugin.engine.parts import Parts, Planned, status_of
from sarathi_plugin.plugins import MAX_FAILURES
from sarathi_plugin.telemetry.table import EMPTY, NO_TOKENS, TokenBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sarathi_plugin.policies.base import Policy
    from sarathi_plugin.telemetry.buffer import Message
    from sarathi_plugin.telemetry.table import Emission

logger = logging.getLogger(__name__)

STOCK = StepPlan()
FLUSH_NS = NS_PER_S // 4
FLUSH_LENGTH = 64
"""Steps and ended requests are observed together, at the latest after this time or so many of them."""


class Driver:
    """One per scheduler; called by it at its four public methods. No method raises."""

    def __init__(self, scheduler: Any, parts: Parts) -> None:
        self._scheduler = scheduler
        self._policy: Policy | None = parts.policy
        self._model = parts.model
        self._table = parts.table
        self._buffer = parts.buffer
        self._observers = parts.observers
        self._default_class = parts.default_class
        self._clock = parts.clock
        self._adapter = Adapter(scheduler, parts.table, parts.model)
        self._classes = {slo.name: slo for slo in parts.table.classes}
        self._in_flight: dict[int, Planned] = {}
        self._failures = 0
        self._complained: set[str] = set()
        self._last_end_ns = 0
        self._flushed_ns = 0
        self._pending: list[tuple[Any, Any]] = []
        self._policy_ns = 0
        self._plan, self._budget, self._fallback = STOCK, 0, False
        self._names: list[str] = []
        self._known = np.empty(0, bool)
        self._slots = self._ones = EMPTY

    def now_ns(self) -> int:
        """The driver's monotonic clock."""
        return self._clock.monotonic_ns()

    # -- requests ---------------------------------------------------------------------------------------------

    def add(self, request: Any) -> None:
        """A request arrived: its SLO class, and its arrival on the monotonic clock."""
        try:
            if request.request_id in self._table.rows or request.sampling_params is None:
                return
            now = self._clock.monotonic_ns()
            waited = max(0.0, self._clock.wall() - request.arrival_time)
            row = self._table.add(
                request.request_id,
                self._class_of(request),
                now - int(waited * NS_PER_S),
                request.num_prompt_tokens,
                request.max_tokens,
            )
            if row is None:
                self._buffer.add("untracked_requests", 1)
        except Exception:
            self._failed("tracking a new request")

    def _class_of(self, request: Any) -> SloClass:
        name = (request.sampling_params.extra_args or {}).get("slo_class")
        if name is None:
            return self._default_class
        found = self._classes.get(name) if isinstance(name, str) else None
        if found is None:
            self._buffer.add("unknown_slo_class", 1)
            return self._default_class
        return found

    def finished(self, request_ids: str | Iterable[str] | None, status: RequestStatus) -> None:
        """Requests ended from outside: aborted, failed, or everything at once (None)."""
        now = self._clock.monotonic_ns()
        if request_ids is None:
            request_ids = list(self._table.rows)
        elif isinstance(request_ids, str):
            request_ids = (request_ids,)
        for request_id in request_ids:
            self._leave(request_id, status, now)
        if not self._table.rows:  # no further step may come
            self.flush()

    def _leave(self, request_id: str, status: RequestStatus, now_ns: int) -> None:
        try:
            outcome = self._table.remove(request_id, status, now_ns)
            if outcome is not None:
                self._names = [""]  # its slot may soon belong to another request of the same name
                self._pending.append((self._table.timeline(outcome), outcome))
        except Exception:
            self._failed("tracking the end of a request")

    # -- steps ------------------------------------------------------------------------------------------------

    def before_schedule(self) -> None:
        """Plan the step and set the levers; on any failure the step is stock."""
        begin = time.perf_counter_ns()
        self._plan, self._budget, self._fallback = STOCK, self._scheduler.max_num_scheduled_tokens, False
        try:
            now = self._clock.monotonic_ns()
            view = self._adapter.fill(now, self._free_at(now))
            if self._policy is not None:
                self._plan = self._policy.plan(view)
                self._budget = self._adapter.apply(self._plan)
                self._failures = 0
        except Exception:
            self._adapter.restore()
            self._plan, self._budget, self._fallback = STOCK, self._scheduler.max_num_scheduled_tokens, True
            self._policy_failed()
        self._policy_ns += time.perf_counter_ns() - begin

    def _free_at(self, now_ns: int) -> int:
        free = now_ns
        if self._in_flight:
            first = True
            for planned in self._in_flight.values():
                start = max(planned.schedule_ns, self._last_end_ns) if first else free
                free = start + planned.predicted_ns
                first = False
        return max(free, now_ns)

    def restore(self) -> None:
        """Put the levers back, also when vLLM itself raised."""
        self._adapter.restore()

    def after_schedule(self, output: Any) -> None:
        """Note what vLLM made of the plan."""
        begin = time.perf_counter_ns()
        try:
            view, plan = self._adapter.view, self._plan
            shape, chunks = self._adapter.shape_of(output, view.now_ns)
            empty = not output.total_num_scheduled_tokens
            work = bool(view.running or view.waiting_count) and not output.preempted_req_ids
            busy = any(planned.shape.kind != "empty" for planned in self._in_flight.values())
            self._adapter.note_turn(idle=empty and work and not busy)
            limit = "decodes" if plan.budget is not None and view.decode_tokens > plan.budget else plan.limit
            self._in_flight[id(output)] = Planned(
                view.step,
                view.now_ns,
                shape,
                chunks,
                0 if empty else self._model.predict_ns(shape),
                plan,
                self._budget,
                limit,
                len(self._scheduler.running),
                view.waiting_count,
                view.free_blocks,
                len(output.preempted_req_ids or ()),
                self._fallback,
            )
        except Exception:
            self._failed("recording a scheduled step")
        self._policy_ns += time.perf_counter_ns() - begin

    def after_update(self, output: Any, results: Mapping[int, Any], now_ns: int) -> None:
        """The step is done: tokens to the table, duration to the model, record to the observers, metrics on their way.

        now_ns: taken before vLLM processed the outputs, the earliest moment at which the tokens existed here.
        """
        begin = time.perf_counter_ns()
        planned = self._in_flight.pop(id(output), None)
        groups = [outputs.outputs for outputs in results.values()]
        outs = groups[0] if len(groups) == 1 else [out for group in groups for out in group]
        last = [out for out in outs if out.finish_reason is not None]
        try:
            emission = self._take_tokens(outs, last, now_ns)
            if planned is not None:
                self._observe(planned, emission, now_ns)
        except Exception:
            self._failed("measuring a step")
        for out in last:
            self._leave(out.request_id, status_of(str(out.finish_reason)), now_ns)
        idle = not (self._scheduler.running or self._scheduler.waiting)
        if idle or not self._model.ready or self._due(now_ns):
            self.flush()
        self._policy_ns += time.perf_counter_ns() - begin
        self._send(results)

    def _take_tokens(self, outs: list[Any], last: list[Any], now_ns: int) -> Emission | None:
        if self._scheduler.num_spec_tokens or any(not out.new_token_ids for out in last):
            outs = [out for out in outs if out.new_token_ids]
            counts = np.array([len(out.new_token_ids) for out in outs], np.int64)
        else:
            counts = self._ones if len(self._ones) == len(outs) else np.ones(len(outs), np.int64)
            self._ones = counts
        names = [out.request_id for out in outs]
        if names != self._names:  # in steady state the same requests yield a token at every step
            rows = [self._table.rows.get(name) for name in names]
            self._names = names
            self._known = np.array([row is not None for row in rows], bool)
            self._slots = np.array([row.slot for row in rows if row is not None], np.int64)
        if not len(self._slots):
            return None
        if len(self._slots) < len(names):
            counts = counts[self._known]
        return self._table.advance(self._slots, counts, now_ns)

    def _observe(self, planned: Planned, emission: Emission | None, now_ns: int) -> None:
        start = max(planned.schedule_ns, self._last_end_ns)
        self._last_end_ns = now_ns
        plan = planned.plan
        record = StepRecord(
            planned.step,
            planned.schedule_ns,
            start,
            now_ns,
            planned.shape,
            planned.chunks,
            planned.predicted_ns,
            plan.available_ns,
            planned.budget,
            planned.limit,
            planned.running,
            planned.waiting,
            planned.free_blocks,
            planned.preemptions,
            plan.relegated,
            self._policy_ns,
            planned.fallback,
        )
        self._policy_ns = 0
        self._pending.append((record, emission))

    def _due(self, now_ns: int) -> bool:
        """Whether enough has gathered to be observed.

        After vLLM's own work our code is out of the processor's caches, and the first run of it costs several times the
        next: a few steps observed together are far cheaper than one by one.
        """
        return now_ns - self._flushed_ns >= FLUSH_NS or len(self._pending) >= FLUSH_LENGTH

    def flush(self) -> None:
        """Hand what has gathered to model and observers, in the order in which it happened."""
        pending, self._pending = self._pending, []
        self._flushed_ns = self._last_end_ns
        for what, detail in pending:
            if not isinstance(what, StepRecord):
                self._observers.call("request_finished", timeline=what, outcome=detail)
                continue
            tokens = detail.tokens() if detail else TokenBatch(what.end_ns, *NO_TOKENS)
            self._observers.call("observe_step", record=what, tokens=tokens)
            try:
                self._model.update(what.shape, what.duration_ns)
            except Exception:
                self._failed("learning from a step")

    def _send(self, results: Mapping[int, Any]) -> None:
        """Attach the metrics to the statistics vLLM sends anyway; without a carrier they wait for the next step."""
        try:
            for outputs in results.values():
                stats = outputs.scheduler_stats
                if stats is not None:
                    message: Message | None = self._buffer.drain()
                    stats.sarathi = message
                    return
        except Exception:
            self._failed("sending metrics")

    # -- failures ---------------------------------------------------------------------------------------------

    def _policy_failed(self) -> None:
        self._failures += 1
        if self._failures == 1:
            logger.exception("The scheduling policy failed; stock decisions for this step.")
        if self._failures >= MAX_FAILURES:
            self._policy = None
            self._buffer.set("policy_enabled", 0)
            logger.error("The scheduling policy is switched off after %d failures in a row.", self._failures)

    def _failed(self, doing: str) -> None:
        self._buffer.add("plugin_errors", 1, ("sarathi",))
        if doing in self._complained:
            return
        self._complained.add(doing)
        logger.exception("The plugin failed at %s; the engine goes on.", doing)
