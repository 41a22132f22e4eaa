"""What a driver is made of, and the step it keeps in mind between schedule and update."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.core import SloClass, StepPlan, StepShape, StepTimeModel
    from sarathi_plugin.engine.journal import Journal
    from sarathi_plugin.plugins import Observers
    from sarathi_plugin.policies.base import Policy
    from sarathi_plugin.records import RequestStatus
    from sarathi_plugin.telemetry.buffer import MetricBuffer
    from sarathi_plugin.telemetry.live.writer import LiveWriter
    from sarathi_plugin.telemetry.table import RequestTable


@dataclass(frozen=True)
class Clock:
    """Where time comes from: a monotonic clock in nanoseconds, the wall clock in seconds, and what our code costs."""

    monotonic_ns: Callable[[], int] = time.monotonic_ns
    wall: Callable[[], float] = time.time
    cost_ns: Callable[[], int] = time.perf_counter_ns


@dataclass(slots=True)
class Planned:
    """A step on its way: everything of its StepRecord that is known before it ends."""

    step: int
    schedule_ns: int
    shape: StepShape
    chunks: int
    predicted_ns: int
    plan: StepPlan
    budget: int
    limit: str
    running: int
    waiting: int
    free_blocks: int
    preemptions: int
    fallback: bool


@dataclass(slots=True)
class Parts:
    """What the driver is made of."""

    policy: Policy
    model: StepTimeModel
    table: RequestTable
    buffer: MetricBuffer
    observers: Observers
    default_class: SloClass
    clock: Clock = field(default_factory=Clock)
    journal: Journal | None = None
    live: LiveWriter | None = None


def status_of(finish_reason: str) -> RequestStatus:
    """vLLM's finish reason as the status of a timeline."""
    if finish_reason == "abort":
        return "aborted"
    return "error" if finish_reason == "error" else "finished"
