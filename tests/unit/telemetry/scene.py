"""A small engine for tests of what is measured: requests arrive, get tokens and leave at given milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.core import NS_PER_MS, NS_PER_S, SloClass, StepShape
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.records import StepRecord
from sarathi_plugin.telemetry.buffer import MetricBuffer
from sarathi_plugin.telemetry.catalogue import BY_NAME
from sarathi_plugin.telemetry.emission import NO_TOKENS, TokenBatch
from sarathi_plugin.telemetry.snapshot import Snapshot
from sarathi_plugin.telemetry.table import RequestTable
from sarathi_plugin.telemetry.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.records import RequestStatus

START_NS = 5_000 * NS_PER_S
FAST = SloClass("fast", tbt_ns=50 * NS_PER_MS, ttft_slack_ns=300 * NS_PER_MS)
SLOW = SloClass("slow", tbt_ns=1000 * NS_PER_MS, ttft_slack_ns=2000 * NS_PER_MS, completion_ns=NS_PER_S)
NO_PREFILL = PrefillCurve(0, 0, 0)


def at(ms: float) -> int:
    """A moment of the scene in nanoseconds."""
    return START_NS + round(ms * NS_PER_MS)


def make_record(shape: StepShape = StepShape(1, 1, 10), ms: float = 20.0, **changes: Any) -> StepRecord:  # noqa: B008
    """A step of so many milliseconds that ended at the start of the scene."""
    given: dict[str, Any] = {
        "step": 1, "schedule_ns": START_NS - round(ms * NS_PER_MS), "start_ns": START_NS - round(ms * NS_PER_MS),
        "end_ns": START_NS, "shape": shape, "chunks": 0, "predicted_ns": 0, "available_ns": None, "budget": 512,
        "limit": "slack", "running": 1, "waiting": 0, "free_blocks": 9, "preemptions": 0, "relegations": 0,
        "policy_ns": 30_000, "fallback": False,
    }  # fmt: skip
    return StepRecord(**(given | changes))


class Scene:
    """Request table, tracker and buffer as the engine connects them."""

    def __init__(self, targets_ms: Sequence[float] = (25, 50, 100)) -> None:
        self.buffer = MetricBuffer()
        self.snapshot = Snapshot.private()
        classes = [FAST, SLOW]
        self.table = RequestTable(classes, NO_PREFILL, self.snapshot)
        self.tracker = Tracker(
            self.buffer, self.snapshot, classes, [round(t * NS_PER_MS) for t in targets_ms]
        )

    def arrive(
        self, name: str, slo: SloClass = FAST, ms: float = 0, scheduled_ms: float | None = None
    ) -> None:
        row = self.table.add(name, slo, at(ms), 10, 99)
        assert row is not None
        row.scheduled_ns = None if scheduled_ms is None else at(scheduled_ms)

    def emit(self, ms: float, tokens: dict[str, int] | str, record: StepRecord | None = None) -> None:
        """One step that ends now and gives these requests so many tokens (or one to each of the named)."""
        if isinstance(tokens, str):
            tokens = dict.fromkeys(tokens.split(), 1)
        slots = np.array([self.table.rows[name].slot for name in tokens], np.int64)
        batch = self.table.emit(slots, np.array(list(tokens.values()), np.int64), at(ms))
        self.tracker.observe_step(record or make_record(), batch)

    def step(self, record: StepRecord) -> None:
        """One step without tokens."""
        self.tracker.observe_step(record, TokenBatch(record.end_ns, *NO_TOKENS))

    def leave(self, ms: float, name: str, status: RequestStatus = "finished") -> None:
        outcome = self.table.remove(name, status, at(ms))
        assert outcome is not None
        self.tracker.request_finished(self.table.timeline(outcome), outcome)

    def read(self) -> Reading:
        """Everything measured since the last call."""
        return Reading(self.buffer.drain() or {"c": [], "h": [], "g": []})


class Reading:
    """An engine message, by metric and labels."""

    def __init__(self, message: dict[str, list[list[Any]]]) -> None:
        self.counters = {(name, *labels): value for name, labels, value in message["c"]}
        self.gauges = {(name, *labels): value for name, labels, value in message["g"]}
        self._histograms = {(name, *labels): (total, counts) for name, labels, total, counts in message["h"]}

    def counter(self, name: str, *labels: str) -> float:
        return self.counters.get((name, *labels), 0)

    def buckets(self, name: str, *labels: str) -> dict[float, int]:
        """How many observations each upper edge holds by itself; empty ones are left out."""
        counts = self._histograms.get((name, *labels), (0, []))[1]
        edges = [*BY_NAME[name].buckets, float("inf")]
        return {edge: count for edge, count in zip(edges, counts, strict=False) if count}

    def total(self, name: str, *labels: str) -> float:
        """The sum of all observations."""
        return self._histograms.get((name, *labels), (0.0, []))[0]
