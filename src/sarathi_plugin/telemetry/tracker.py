"""The tracker plugin: turns steps and finished requests into metrics, in the engine, once per step."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import NS_PER_S, SloClass
from sarathi_plugin.deadlines import FLUID_THRESHOLD
from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.telemetry.catalogue import LATENCY_BUCKETS
from sarathi_plugin.telemetry.targets import TargetTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.core import IntArray
    from sarathi_plugin.records import RequestTimeline, StepRecord
    from sarathi_plugin.telemetry.buffer import MetricBuffer
    from sarathi_plugin.telemetry.emission import TokenBatch
    from sarathi_plugin.telemetry.snapshot import Snapshot
    from sarathi_plugin.telemetry.table import Outcome

logger = logging.getLogger(__name__)

EDGES_NS = np.array([round(edge * NS_PER_S) for edge in LATENCY_BUCKETS], np.int64)
CALIBRATION_STEPS = 32
"""Decode-only steps behind the warning that a D_d cannot be met by this engine at all."""

MOST_LIMITS = 32
"""Limits of a budget that are told apart, should a policy put more than words into them; all others are OTHER."""

OTHER = "other"


class Tracker:
    """Feeds a MetricBuffer. classes: in the order of their indices; targets_ns: D_d values of the acceptance curve."""

    def __init__(
        self,
        buffer: MetricBuffer,
        snapshot: Snapshot,
        classes: Sequence[SloClass],
        targets_ns: Sequence[int],
    ) -> None:
        self._buffer = buffer
        self._snapshot = snapshot
        self._classes = tuple(classes)
        self._targets = TargetTable(targets_ns)
        self._decode_ns: deque[int] = deque(maxlen=CALIBRATION_STEPS)
        self._steps = 0
        self._warned: set[str] = set()
        self._limits: set[str] = set()

    @hookimpl
    def observe_step(self, record: StepRecord, tokens: TokenBatch) -> None:
        """Count one step."""
        self._observe_engine(record)
        if len(tokens.slots):
            self._targets.emit(tokens)
            slo = tokens.slo_index
            low = int(slo.min())
            if low == int(slo.max()):
                self._observe_tokens(tokens, low, None)
            else:
                for index in np.unique(slo).tolist():
                    self._observe_tokens(tokens, index, slo == index)

    def _observe_engine(self, record: StepRecord) -> None:
        buffer, shape = self._buffer, record.shape
        kind = (shape.kind,)
        seconds = record.duration_ns / NS_PER_S
        buffer.add("preemptions", record.preemptions)
        buffer.add("relegations", record.relegations)
        buffer.add("policy_fallbacks", record.fallback)
        buffer.observe("policy_seconds", record.policy_ns / NS_PER_S)
        if shape.kind == "empty":
            return
        buffer.observe("step_duration_seconds", seconds, kind)
        buffer.add("step_prefill_tokens", shape.prefill_tokens, kind)
        buffer.add("step_decode_tokens", shape.decode_tokens, kind)
        buffer.observe("step_budget_tokens", record.budget)
        buffer.add("step_budget_limit", 1, (self._limit(record.limit),))
        buffer.add("decodes_over_budget", record.limit == "decodes")
        if record.predicted_ns and record.duration_ns > 0:
            error = abs(record.predicted_ns - record.duration_ns) / record.duration_ns
            buffer.observe("step_prediction_error_ratio", error, kind)
            buffer.add("step_predicted_seconds", record.predicted_ns / NS_PER_S, kind)
        if shape.kind == "decode":
            self._watch_targets(record.duration_ns)

    def _limit(self, limit: str) -> str:
        """The label of a limit: every one is a series that Prometheus and the API server keep for good."""
        if limit not in self._limits:
            if len(self._limits) >= MOST_LIMITS:
                return OTHER
            self._limits.add(limit)
        return limit

    def _watch_targets(self, duration_ns: int) -> None:
        """Say in a metric when a D_d is below what a decode step takes by itself on this engine."""
        self._decode_ns.append(duration_ns)
        self._steps += 1
        if len(self._decode_ns) == CALIBRATION_STEPS and self._steps % CALIBRATION_STEPS == 0:
            fastest = min(self._decode_ns)
            for slo in self._classes:
                below = slo.tbt_ns < fastest
                self._buffer.set("target_below_decode_step", float(below), (slo.name,))
                if below and slo.name not in self._warned:
                    self._warned.add(slo.name)
                    logger.warning(
                        "SLO class %r allows %.1f ms per token, but a decode step alone takes %.1f ms on this engine: "
                        "no scheduler can meet it.",
                        slo.name,
                        slo.tbt_ns / 1e6,
                        fastest / 1e6,
                    )

    def _observe_tokens(self, batch: TokenBatch, index: int, rows: np.ndarray | None) -> None:
        label = (self._classes[index].name,)
        counts, gaps = batch.counts, batch.gaps_ns
        if rows is not None:
            counts, gaps = counts[rows], gaps[rows]
        buffer = self._buffer
        tokens = int(counts.sum())
        buffer.add("output_tokens", tokens, label)
        late = 0 if batch.missed is None else self._observe_misses(batch, batch.missed, label, rows)
        buffer.add("deadlines_met", tokens - late, label)
        shortest = int(gaps.min())
        if shortest >= 0 and shortest == int(
            gaps.max()
        ):  # the steady state: all had a token in the step before
            buffer.observe("tbt_seconds", shortest / NS_PER_S, label, len(gaps))
        else:
            further = gaps[gaps >= 0]
            buckets = np.bincount(EDGES_NS.searchsorted(further), minlength=len(EDGES_NS) + 1)
            buffer.observe_counts("tbt_seconds", buckets, int(further.sum()) / NS_PER_S, label)
            if shortest < 0:
                overdue = batch.overdue_ns if rows is None else batch.overdue_ns[rows]
                for delay in overdue[gaps < 0].tolist():
                    buffer.observe("prefill_delay_seconds", max(0, delay) / NS_PER_S, label)
        if tokens > len(counts):
            buffer.observe("tbt_seconds", 0.0, label, tokens - len(counts))

    def _observe_misses(
        self, batch: TokenBatch, missed: IntArray, label: tuple[str], rows: np.ndarray | None
    ) -> int:
        """Count late tokens (returned), the periods they missed, and the stalls they end."""
        overdue, gaps = batch.overdue_ns, batch.gaps_ns
        if rows is not None:
            missed, overdue, gaps = missed[rows], overdue[rows], gaps[rows]
        self._buffer.add("deadlines_missed", int(missed.sum()), label)
        for stall in overdue[(missed > 0) & (gaps >= 0)].tolist():
            self._stall(stall, label)
            self._snapshot.note_stall(batch.now_ns, stall)
        return int(np.count_nonzero(missed))

    def _stall(self, stall_ns: int, label: tuple[str]) -> None:
        self._buffer.add("stall_seconds", stall_ns / NS_PER_S, label)
        self._buffer.observe("stall_duration_seconds", stall_ns / NS_PER_S, label)

    @hookimpl
    def request_finished(self, timeline: RequestTimeline, outcome: Outcome) -> None:
        """Count one request that left."""
        buffer, row = self._buffer, outcome.row
        label = (row.slo.name,)
        buffer.add("requests_finished", 1, (row.slo.name, outcome.status))
        buffer.add("deadlines_missed", outcome.late, label)
        if outcome.stall_ns:
            self._stall(outcome.stall_ns, label)
            self._snapshot.note_stall(outcome.end_ns, outcome.stall_ns)
        left_early = outcome.status == "aborted" and not outcome.met + outcome.missed
        fluidity = 1.0 if left_early else timeline.fluidity_index  # nothing was due, so no promise was broken
        buffer.observe("request_fluidity_index", fluidity, label)
        buffer.add("fluid_requests", fluidity >= FLUID_THRESHOLD and outcome.status != "error", label)
        if outcome.first_ns:
            buffer.observe("ttft_seconds", (outcome.first_ns - row.arrival_ns) / NS_PER_S, label)
        if row.scheduled_ns is not None:
            delay = max(0, row.scheduled_ns - row.arrival_ns)
            buffer.observe("scheduling_delay_seconds", delay / NS_PER_S, label)
        if row.slo.completion_ns is not None:
            in_time = timeline.status == "finished" and (
                timeline.end_ns - row.arrival_ns <= row.slo.completion_ns
            )
            buffer.add(f"completion_deadlines_{'met' if in_time else 'missed'}", 1, label)
        for target_ns, fluid in self._targets.judge(outcome):
            target = (f"{target_ns / 1e6:g}",)
            buffer.add("target_requests", 1, target)
            buffer.add("target_fluid_requests", fluid, target)
        buffer.set("fluid_token_rate", self._targets.fluid_token_rate)
