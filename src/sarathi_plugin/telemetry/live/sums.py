"""Sums over engines at one moment: what a class met, missed and waited for, over windows of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.core import NS_PER_S, IntArray, SloClass
from sarathi_plugin.telemetry.catalogue import LATENCY_BUCKETS
from sarathi_plugin.telemetry.live import document as doc
from sarathi_plugin.telemetry.live.layout import (
    BUCKETS,
    CLASS_COUNTERS,
    CLASS_HISTOGRAMS,
    ENGINE_COUNTERS,
    PER_CLASS,
)
from sarathi_plugin.telemetry.live.reader import overdue_by, second_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.telemetry.live.reader import EngineColumns

AGO_S = np.arange(300, -1, -3)
"""Points of the history, seconds before now."""
OVER_S = 10
"""Each point of the history holds so many seconds, and so does the rate of tokens."""
EDGES_MS = [edge * 1000 for edge in LATENCY_BUCKETS]
ALL_TIME = 0
"""As a window: since the start."""


class Moment:
    """Sums over the chosen engines at one moment."""

    def __init__(self, engines: Sequence[EngineColumns], now_ns: int) -> None:
        self._engines = engines
        self._now_ns = now_ns
        self._second = second_of(now_ns)
        self._cache: dict[int, np.ndarray[Any, Any]] = {}
        found = [overdue_by(e.snapshot, now_ns) for e in engines]
        self._slo, self._late, self._started = (
            np.concatenate([f[i] for f in found]) if found else np.empty(0, np.int64) for i in range(3)
        )

    def _within(self, window_s: int) -> np.ndarray[Any, Any]:
        """What was counted in the last seconds, over all columns."""
        if window_s not in self._cache:
            before = self._second - window_s
            found = [e.totals - (e.totals_before(before) if window_s else 0) for e in self._engines]
            self._cache[window_s] = np.sum(found, axis=0)
        return self._cache[window_s]

    def _length_s(self, window_s: int) -> float:
        """How long ``_within`` really looks back: to the end of a whole second, so up to one less than the window."""
        return (self._now_ns - (self._second - window_s + 1) * NS_PER_S) / NS_PER_S

    def _counter(self, index: int, name: str, window_s: int = ALL_TIME) -> int:
        if not self._engines:
            return 0
        return int(self._within(window_s)[index * PER_CLASS + CLASS_COUNTERS.index(name)])

    def _fluidity(self, index: int, window_s: int, uncounted: int = 0) -> float | None:
        met = self._counter(index, "deadlines_met", window_s)
        total = met + self._counter(index, "deadlines_missed", window_s) + uncounted
        return met / total if total else None

    def class_live(self, index: int, slo: SloClass, window_s: int) -> doc.ClassLive:
        """One class now."""

        def count(name: str) -> int:
            return self._counter(index, name)

        overdue = self._overdue(index, slo)
        return doc.ClassLive(
            name=slo.name,
            fluidity=doc.Fluidity(
                last_10_s=self._fluidity(index, 10),
                last_10_s_with_overdue=self._fluidity(index, 10, overdue.uncounted_misses),
                last_60_s=self._fluidity(index, 60),
                last_300_s=self._fluidity(index, 300),
                since_start=self._fluidity(index, ALL_TIME),
            ),
            met=count("deadlines_met"),
            missed=count("deadlines_missed"),
            requests=int(np.count_nonzero(self._slo == index)),
            overdue=overdue,
            tokens_per_s=self._counter(index, "output_tokens", OVER_S) / self._length_s(OVER_S),
            finished=count("finished"),
            fluid=count("fluid_requests"),
            aborted=count("aborted"),
            errors=count("error") + count("timeout"),
            tbt=self._latency(index, "tbt_seconds", window_s),
            ttft=self._latency(index, "ttft_seconds", window_s),
        )

    def _overdue(self, index: int, slo: SloClass) -> doc.Overdue:
        due = (self._slo == index) & (self._late > 0)
        late, started = self._late[due], self._started[due] > 0
        streams, prompts = late[started], late[~started]
        return doc.Overdue(
            streams=len(streams),
            prompts=len(prompts),
            oldest_stream_s=int(streams.max()) / NS_PER_S if len(streams) else 0.0,
            oldest_prompt_s=int(prompts.max()) / NS_PER_S if len(prompts) else 0.0,
            uncounted_misses=int((late // slo.tbt_ns + 1).sum()),
        )

    def _latency(self, index: int, name: str, window_s: int) -> doc.Latency:
        at = index * PER_CLASS + len(CLASS_COUNTERS) + CLASS_HISTOGRAMS.index(name) * BUCKETS
        counts = self._within(window_s)[at : at + BUCKETS] if self._engines else np.zeros(BUCKETS)
        return doc.Latency(
            count=int(counts.sum()),
            p50_ms=quantile_ms(counts, 0.5),
            p99_ms=quantile_ms(counts, 0.99),
            counts=counts.astype(np.int64).tolist(),
        )

    def errors(self, classes: int) -> doc.Errors:
        """Since start."""
        base = classes * PER_CLASS
        totals = self._within(ALL_TIME) if self._engines else np.zeros(base + len(ENGINE_COUNTERS))
        return doc.Errors(
            **{name: int(totals[base + ENGINE_COUNTERS.index(name)]) for name in doc.Errors.model_fields}
        )

    def history(self, wanted: Sequence[tuple[int, SloClass]]) -> doc.History:
        """The last minutes, oldest first."""
        seconds = self._second - AGO_S
        met, missed = (CLASS_COUNTERS.index(name) for name in ("deadlines_met", "deadlines_missed"))
        places = np.array(
            [[index * PER_CLASS + met, index * PER_CLASS + missed] for index, _ in wanted], np.int64
        )
        counted = np.zeros((len(seconds), len(wanted), 2))
        for engine in self._engines:
            counted += engine.totals_at(seconds, places) - engine.totals_at(seconds - OVER_S, places)
        decided = counted.sum(axis=2)
        shares = np.round(counted[:, :, 0] / np.maximum(decided, 1), 4)
        running, waiting, used = self._gauges(seconds)
        return doc.History(
            ago_s=AGO_S.tolist(),
            fluidity={
                slo.name: _known(shares[:, at], decided[:, at] > 0) for at, (_, slo) in enumerate(wanted)
            },
            running=running,
            waiting=waiting,
            kv_used=used,
        )

    def _gauges(self, seconds: IntArray) -> tuple[list[Any], list[Any], list[Any]]:
        """(running, waiting, share of KV used) as last noted up to each second; None before the start."""
        running, waiting, free, blocks = (np.zeros(len(seconds), np.int64) for _ in range(4))
        for engine in self._engines:
            rows, known = engine.rows_at(seconds)
            running += np.where(known, engine.seconds["running"][rows], 0)
            waiting += np.where(known, engine.seconds["waiting"][rows], 0)
            free += np.where(known, engine.seconds["free_blocks"][rows], 0)
            blocks += np.where(known, int(engine.head["total_blocks"]), 0)
        noted = blocks > 0
        used = np.round(1 - free / np.maximum(blocks, 1), 4)
        return _known(running, noted), _known(waiting, noted), _known(used, noted)


def _known(values: np.ndarray[Any, Any], known: np.ndarray[Any, Any]) -> list[Any]:
    return [value if told else None for value, told in zip(values.tolist(), known.tolist(), strict=True)]


def quantile_ms(counts: np.ndarray[Any, Any], q: float) -> float | None:
    """A quantile of a histogram over LATENCY_BUCKETS, interpolated in its bucket; the last edge when beyond it."""
    total = counts.sum()
    if not total:
        return None
    reached = np.cumsum(counts)
    at = int(np.searchsorted(reached, q * total))
    if at >= len(EDGES_MS):
        return EDGES_MS[-1]
    low = EDGES_MS[at - 1] if at else 0.0
    inside = (q * total - (reached[at] - counts[at])) / counts[at]
    return round(low + float(inside) * (EDGES_MS[at] - low), 3)
