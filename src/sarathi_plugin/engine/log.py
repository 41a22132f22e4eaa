"""What the driver has seen and not yet told: steps and ended requests, handed over a few at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sarathi_plugin.core import NS_PER_S, RequestTimeline, StepRecord
from sarathi_plugin.telemetry.table import NO_TOKENS, TokenBatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.core import StepTimeModel
    from sarathi_plugin.engine.parts import Planned
    from sarathi_plugin.plugins import Observers
    from sarathi_plugin.telemetry.table import Emission, Outcome

FLUSH_NS = NS_PER_S // 4
FLUSH_LENGTH = 64
"""Steps and ended requests are observed together, at the latest after this time or so many of them."""


class StepLog:
    """Feeds step-time model and observers, in the order of events. failed(doing): reports a failure of the model."""

    def __init__(self, model: StepTimeModel, observers: Observers, failed: Callable[[str], None]) -> None:
        self.model = model
        self._observers = observers
        self._failed = failed
        self._pending: list[tuple[Any, Any]] = []
        self._flushed_ns = 0
        self.last_end_ns = 0

    def step(self, planned: Planned, emission: Emission | None, now_ns: int, policy_ns: int) -> None:
        """A step ended at ``now_ns``; our own code took ``policy_ns`` since the one before."""
        start = max(planned.schedule_ns, self.last_end_ns)
        self.last_end_ns = now_ns
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
            policy_ns,
            planned.fallback,
        )
        self._pending.append((record, emission))

    def request(self, timeline: RequestTimeline, outcome: Outcome) -> None:
        """A request ended."""
        self._pending.append((timeline, outcome))

    def due(self, now_ns: int) -> bool:
        """Whether enough has gathered to be observed.

        After vLLM's own work our code is out of the processor's caches, and the first run of it costs several times the
        next: a few steps observed together are far cheaper than one by one. While the model is not ready, every
        step matters to it.
        """
        late = now_ns - self._flushed_ns >= FLUSH_NS
        return late or len(self._pending) >= FLUSH_LENGTH or not self.model.ready

    def flush(self) -> None:
        """Hand what has gathered to model and observers."""
        pending, self._pending = self._pending, []
        self._flushed_ns = self.last_end_ns
        watched = self._observers.listening("observe_step")
        for what, detail in pending:
            if not isinstance(what, StepRecord):
                self._observers.call("request_finished", timeline=what, outcome=detail)
                continue
            if watched:
                tokens = detail.tokens() if detail else TokenBatch(what.end_ns, *NO_TOKENS)
                self._observers.call("observe_step", record=what, tokens=tokens)
            try:
                self.model.update(what.shape, what.duration_ns)
            except Exception:
                self._failed("learning from a step")
