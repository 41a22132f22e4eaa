"""The plugin's part of every engine step: plan before it, measure after it, and never let a failure through."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from sarathi_plugin.core import StepPlan
from sarathi_plugin.engine.adapt import Adapter
from sarathi_plugin.engine.log import FLUSH_NS, StepLog
from sarathi_plugin.engine.parts import Parts, Planned
from sarathi_plugin.engine.roster import Roster
from sarathi_plugin.engine.tokens import TokenTaker
from sarathi_plugin.plugins import MAX_FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sarathi_plugin.core import StepTimeModel
    from sarathi_plugin.policies.base import Policy
    from sarathi_plugin.telemetry.buffer import Message

logger = logging.getLogger(__name__)

STOCK = StepPlan()


class Driver:
    """One per scheduler; called by it at its four public methods. No method raises.

    failed_steps, last_failure: at how many steps the policy failed, and how it did last. lost_track: how our own part
    failed first, empty while it has not.
    """

    def __init__(self, scheduler: Any, parts: Parts) -> None:
        self._scheduler = scheduler
        self._policy: Policy | None = parts.policy
        self._model = parts.model
        self._table = parts.table
        self._buffer = parts.buffer
        self._log = StepLog(parts.model, parts.observers, self._failed)
        self._clock = parts.clock
        self._journal = parts.journal
        self._live = parts.live
        self._adapter = Adapter(scheduler, parts)
        self._in_flight: dict[int, Planned] = {}
        self._failures, self.failed_steps, self.last_failure, self.lost_track = 0, 0, "", ""
        self._complained: set[str] = set()
        self._policy_ns = 0
        self._plan, self._budget, self._fallback = STOCK, 0, False
        self._tokens = TokenTaker(parts.table, speculates=bool(scheduler.num_spec_tokens))
        self._roster = Roster(scheduler, parts, self._log, self, self._failed)

    def now_ns(self) -> int:
        """The driver's monotonic clock."""
        return self._clock.monotonic_ns()

    def use_model(self, model: StepTimeModel) -> None:
        """Go on with another step-time model: a replay starts from the recorded one."""
        self._model = self._adapter.view.model = model
        self._log.model = model

    def add(self, request: Any) -> None:
        """A request arrived."""
        self._roster.add(request)

    def came(self, request_id: str) -> None:
        """A tracked request waits."""
        self._adapter.came(request_id)

    def left(self, request_id: str) -> None:
        """One is tracked no longer."""
        self._adapter.left(request_id)
        self._tokens.forget()

    def finished(self, request_ids: Iterable[str] | None, status: Any) -> None:
        """Requests ended from outside: aborted, failed, or everything at once (None). status: vLLM's."""
        self._roster.finished(request_ids, status)
        if not self._table.rows:  # no further step may come
            self._log.flush()

    # -- steps ------------------------------------------------------------------------------------------------

    def before_schedule(self) -> None:
        """Plan the step and set the levers; on any failure the step is stock."""
        begin = self._clock.cost_ns()
        self._plan, self._budget, self._fallback = STOCK, self._scheduler.max_num_scheduled_tokens, False
        try:
            now = self._clock.monotonic_ns()
            view = self._adapter.fill(now, self._free_at(now))
            if self._policy is not None:
                self._plan = self._policy.plan(view)
                self._budget = self._adapter.apply(self._plan)
                self._failures = 0
        except Exception as error:
            self._adapter.restore()
            self._plan, self._budget, self._fallback = STOCK, self._scheduler.max_num_scheduled_tokens, True
            self._policy_failed(error)
        self._policy_ns += self._clock.cost_ns() - begin

    def _free_at(self, now_ns: int) -> int:
        free = now_ns
        if self._in_flight:
            first = True
            for planned in self._in_flight.values():
                start = max(planned.schedule_ns, self._log.last_end_ns) if first else free
                free = start + planned.predicted_ns
                first = False
        return max(free, now_ns)

    def restore(self) -> None:
        """Put the levers back, also when vLLM itself raised."""
        self._adapter.restore()

    def after_schedule(self, output: Any) -> None:
        """Note what vLLM made of the plan."""
        begin = self._clock.cost_ns()
        if self._journal:
            self._journal.scheduled(output, self._adapter.view.now_ns)
        try:
            view, plan = self._adapter.view, self._plan
            shape, chunks = self._adapter.shape_of(output)
            empty = not output.total_num_scheduled_tokens
            work = bool(view.running or view.waiting_count) and not output.preempted_req_ids
            busy = any(planned.shape.kind != "empty" for planned in self._in_flight.values())
            self._adapter.note_turn(idle=empty and work and not busy)
            planned = self._in_flight[id(output)] = Planned(
                view.step,
                view.now_ns,
                shape,
                chunks,
                0 if empty else self._model.predict_ns(shape),
                plan,
                self._budget,
                self._limit(),
                len(self._scheduler.running),
                view.waiting_count,
                view.free_blocks,
                len(output.preempted_req_ids or ()),
                self._fallback,
            )
            if self._live:
                self._live.scheduled(planned, self._adapter.computed)
                if planned.predicted_ns > FLUSH_NS:  # nobody should wait that long for what is known now
                    self._log.flush()
        except Exception:
            self._failed("recording a scheduled step")
        self._policy_ns += self._clock.cost_ns() - begin

    def _limit(self) -> str:
        """What bound the budget of the step just planned."""
        plan = self._plan
        over = plan.budget is not None and self._adapter.view.decode_tokens > plan.budget
        return "decodes" if over else plan.limit

    def after_update(self, output: Any, results: Mapping[int, Any], now_ns: int) -> None:
        """The step is done: tokens to the table, duration to the model, record to the observers, metrics on their way.

        now_ns: taken before vLLM processed the outputs, the earliest moment at which the tokens existed here.
        """
        begin = self._clock.cost_ns()
        planned = self._in_flight.pop(id(output), None)
        groups = [outputs.outputs for outputs in results.values()]
        outs = groups[0] if len(groups) == 1 else [out for group in groups for out in group]
        last = [out for out in outs if out.finish_reason is not None]
        if self._journal:
            self._journal.updated(outs, now_ns)
        try:
            emission = self._tokens.take(outs, now_ns)
            if planned is not None:
                if self._live:
                    self._live.done(planned.step, now_ns)
                self._log.step(planned, emission, now_ns, self._policy_ns)
                self._policy_ns = 0
        except Exception:
            self._failed("measuring a step")
        for out in last:
            self._roster.ended(out, now_ns)
        idle = not (self._scheduler.running or self._scheduler.waiting)
        if idle or self._log.due(now_ns):
            self._log.flush()
        self._policy_ns += self._clock.cost_ns() - begin
        self._send(results, now_ns)

    def flush(self) -> None:
        """Hand what has gathered to model and observers: the engine stops."""
        self._log.flush()

    # -- steps that a simulation takes many at once -----------------------------------------------------------

    def may_coast(self) -> bool:
        """Whether steps like the last one can be taken without planning each.

        True when the last plan was the policy's own for decodes alone, the policy declares that such plans stay the
        same, and the requests that got tokens last are all that run.
        """
        view = self._adapter.view
        steady = self._policy is not None and self._policy.coasts and not self._fallback
        if not steady or view.has_prefill_work:
            return False
        return self._tokens.steady([request.request_id for request in self._scheduler.running])

    def coast_schedule(self, output: Any, free_blocks: int) -> None:
        """One more step is scheduled, with the shape of those before; ``output`` names it until its update."""
        try:
            view = self._adapter.coast(self._clock.monotonic_ns(), free_blocks)
            shape = view.decode_shape
            self._in_flight[id(output)] = Planned(
                view.step, view.now_ns, shape, 0, self._model.predict_ns(shape), self._plan, self._budget,
                self._limit(), view.running, 0, free_blocks, 0, False,
            )  # fmt: skip
        except Exception:
            self._failed("recording a scheduled step")

    def coast_rename(self, name: Any, output: Any) -> None:
        """The step that ``name`` named goes by ``output`` from now on."""
        if id(name) in self._in_flight:
            self._in_flight[id(output)] = self._in_flight.pop(id(name))

    def coast_update(self, output: Any) -> None:
        """The step that ``output`` names is done: a token for everybody."""
        now_ns = self._clock.monotonic_ns()
        try:
            self._log.step(self._in_flight.pop(id(output)), self._tokens.again(now_ns), now_ns, 0)
        except Exception:
            self._failed("measuring a step")
        if self._log.due(now_ns):
            self._log.flush()

    def coast_end(self) -> None:
        """Plain steps follow."""
        self._table.publish()

    def _send(self, results: Mapping[int, Any], now_ns: int) -> None:
        """Attach the metrics to the statistics vLLM sends anyway; without a carrier they wait for the next step."""
        try:
            carriers = [out.scheduler_stats for out in results.values() if out.scheduler_stats is not None]
            if not carriers and (self._live is None or self._scheduler.log_stats):
                return
            message: Message | None = self._buffer.drain()
            if carriers:
                carriers[0].sarathi = message
            if message and self._live:
                self._live.apply(message, now_ns)
        except Exception:
            self._failed("sending metrics")

    # -- failures ---------------------------------------------------------------------------------------------

    def _policy_failed(self, error: Exception) -> None:
        self._failures, self.failed_steps = self._failures + 1, self.failed_steps + 1
        self.last_failure = f"{type(error).__name__}: {error}"
        if "planning" not in self._complained:
            self._complained.add("planning")
            logger.exception("The scheduling policy failed; stock decisions for this step.")
        if self._failures >= MAX_FAILURES and self._policy is not None:
            self._policy = None
            self._buffer.set("policy_enabled", 0)
            logger.error("The scheduling policy is switched off after %d failures in a row.", self._failures)

    def _failed(self, doing: str) -> None:
        self._buffer.add("plugin_errors", 1, ("sarathi",))
        error = sys.exception()
        self.lost_track = self.lost_track or f"{doing}: {type(error).__name__}: {error}"
        if doing in self._complained:
            return
        self._complained.add(doing)
        logger.exception("The plugin failed at %s; the engine goes on.", doing)
