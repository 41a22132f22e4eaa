"""Metrics gathered in the engine between two steps, and the small message that carries them to an API server."""

from __future__ import annotations

from bisect import bisect_left
from numbers import Integral
from typing import TYPE_CHECKING, Any

from sarathi_plugin.telemetry.catalogue import BY_NAME

if TYPE_CHECKING:
    from sarathi_plugin.core import IntArray

Labels = tuple[str, ...]
Message = dict[str, list[list[Any]]]
"""``{"c": [[name, labels, add]], "h": [[name, labels, sum, [bucket counts]]], "g": [[name, labels, value]]}``."""


class MetricBuffer:
    """Adds up counters, histogram buckets and gauges until they are drained. Not thread-safe."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, Labels], float] = {}
        self._histograms: dict[tuple[str, Labels], list[Any]] = {}
        self._gauges: dict[tuple[str, Labels], float] = {}

    def add(self, name: str, value: float, labels: Labels = ()) -> None:
        """Count ``value`` more."""
        if value:
            key = (name, labels)
            self._counters[key] = self._counters.get(key, 0) + value

    def set(self, name: str, value: float, labels: Labels = ()) -> None:
        """Set a gauge."""
        self._gauges[name, labels] = value

    def observe(self, name: str, value: float, labels: Labels = (), times: int = 1) -> None:
        """``times`` observations of one value, in the metric's base unit."""
        entry = self._histogram(name, labels)
        entry[0] += value * times
        entry[1][bisect_left(BY_NAME[name].buckets, value)] += times

    def observe_counts(self, name: str, counts: IntArray, total: float, labels: Labels = ()) -> None:
        """Many observations already sorted into buckets (the last count is beyond the last edge)."""
        entry = self._histogram(name, labels)
        entry[0] += total
        buckets = entry[1]
        for index in counts.nonzero()[0].tolist():
            buckets[index] += int(counts[index])

    def _histogram(self, name: str, labels: Labels) -> list[Any]:
        entry = self._histograms.get((name, labels))
        if entry is None:
            entry = self._histograms[name, labels] = [0.0, [0] * (len(BY_NAME[name].buckets) + 1)]
        return entry

    def drain(self) -> Message | None:
        """Everything since the last call, or None. Plain Python, whatever policies and models gave.

        vLLM's encoder refuses numpy's numbers and subclasses of str, and the thread it fails in is the one that sends
        the engine's answers.
        """
        if not (self._counters or self._histograms or self._gauges):
            return None
        message: Message = {
            "c": [[name, _texts(labels), _number(value)] for (name, labels), value in self._counters.items()],
            "h": [
                [name, _texts(labels), _number(total), counts]
                for (name, labels), (total, counts) in self._histograms.items()
            ],
            "g": [[name, _texts(labels), _number(value)] for (name, labels), value in self._gauges.items()],
        }
        self._counters, self._histograms, self._gauges = {}, {}, {}
        return message


def _number(value: Any) -> int | float:
    if type(value) in (int, float):
        return value  # type: ignore[no-any-return]
    return int(value) if isinstance(value, Integral) else float(value)


def _texts(labels: tuple[object, ...]) -> list[str]:
    return [str.__str__(label) if isinstance(label, str) else str(label) for label in labels]
