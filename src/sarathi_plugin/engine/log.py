"""What the driver has seen and not yet told: steps and ended requests, handed over a few at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.records import StepRecord
from sarathi_plugin.telemetry.emission import NO_TOKENS, TokenBatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.core import StepTimeModel
    from sarathi_plugin.engine.parts import Planned
    from sarathi_plugin.plugins import Observers
    from sarathi_plugin.records import RequestTimeline
    from sarathi_plugin.telemetry.emission import Emission
    from sarathi_plugin.telemetry.table import Outcome

FLUSH_NS = NS_PER_S // 4
FLUSH_LENGTH = 64
"""Steps and ended requests are observed together, at the latest after this time or so many of them."""


class _Left(NamedTuple):
    timeline: RequestTimeline
    outcome: Outcome


class _Done(NamedTuple):
    planned: Planned
    start_ns: int
    end_ns: int
    policy_ns: int
    emission: Emission | None

    def record(self) -> StepRecord:
        """For the observers."""
        planned = self.planned
        return StepRecord(
            planned.step,
            planned.schedule_ns,
            self.start_ns,
            self.end_ns,
            planned.shape,
            planned.chunks,
            planned.predicted_ns,
            planned.plan.available_ns,
            planned.budget,
            planned.limit,
            planned.running,
            planned.waiting,
            planned.free_blocks,
            planned.preemptions,
            planned.plan.relegated,
            self.policy_ns,
            planned.fallback,
        )


class StepLog:
    """Feeds step-time model and observers, in the order of events. failed(doing): reports a failure of the model."""

    def __init__(self, model: StepTimeModel, observers: Observers, failed: Callable[[str], None]) -> None:
        self.model = model
        self._observers = observers
        self._failed = failed
        self._pending: list[_Done | _Left | Callable[[], None]] = []
        self._flushed_ns = 0
        self._largest = 0
        """Most prompt tokens of a pending step."""
        self.last_end_ns = 0

    def step(self, planned: Planned, emission: Emission | None, now_ns: int, policy_ns: int) -> None:
        """A step ended at ``now_ns``; our own code took ``policy_ns`` since the one before."""
        start = max(planned.schedule_ns, self.last_end_ns)
        self.last_end_ns = now_ns
        self._pending.append(_Done(planned, start, now_ns, policy_ns, emission))
        self._largest = max(self._largest, planned.shape.prefill_tokens)

    def request(self, timeline: RequestTimeline, outcome: Outcome) -> None:
        """A request ended."""
        self._pending.append(_Left(timeline, outcome))

    def later(self, call: Callable[[], None]) -> None:
        """Call this, which does not raise, when all that happened before it has been observed."""
        self._pending.append(call)

    def due(self, now_ns: int) -> bool:
        """Whether enough has gathered to be observed.

        After vLLM's own work our code is out of the processor's caches, and the first run of it costs several times the
        next: a few steps observed together are far cheaper than one by one. While the model is not ready, every
        step matters to it, and later those larger than any it has seen.
        """
        late = now_ns - self._flushed_ns >= FLUSH_NS
        return late or len(self._pending) >= FLUSH_LENGTH or self._news()

    def _news(self) -> bool:
        try:
            seen: int | None = getattr(self.model, "seen_tokens", None)
            return not self.model.ready or (seen is not None and self._largest > seen)
        except Exception:
            self._failed("asking whether the model is ready")
            return False

    def flush(self) -> None:
        """Hand what has gathered to model and observers."""
        pending, self._pending = self._pending, []
        self._flushed_ns, self._largest = self.last_end_ns, 0
        watched = self._observers.listening("observe_step")
        steps = []
        for what in pending:
            if isinstance(what, _Left):
                self._observers.call("request_finished", timeline=what.timeline, outcome=what.outcome)
                continue
            if not isinstance(what, _Done):
                what()
                continue
            steps.append((what.planned.shape, what.end_ns - what.start_ns))
            if watched:
                tokens = what.emission.tokens() if what.emission else TokenBatch(what.end_ns, *NO_TOKENS)
                self._observers.call("observe_step", record=what.record(), tokens=tokens)
        try:
            self.model.learn(steps)
        except Exception:
            self._failed("learning from steps")
