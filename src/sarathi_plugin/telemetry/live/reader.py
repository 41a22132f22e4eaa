"""The API server's side of the shared file: consistent copies of what an engine wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.core import NS_PER_S, IntArray
from sarathi_plugin.telemetry.live import layout
from sarathi_plugin.telemetry.snapshot import Snapshot, snapshot_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

TRIES = 8
KEPT = 300
"""Steps handed on: those of the last seconds."""


@dataclass(frozen=True)
class EngineColumns:
    """One engine at one moment. totals: as in ``layout.counter_places``.

    seconds: the ring as it is; order: its rows in use by time, stamps: the second of each of these.
    """

    index: int
    snapshot: Snapshot
    head: np.void
    totals: np.ndarray[Any, Any]
    steps: np.ndarray[Any, Any]
    requests: np.ndarray[Any, Any]
    seconds: np.ndarray[Any, Any]
    order: IntArray
    stamps: IntArray

    def totals_before(self, second: int) -> np.ndarray[Any, Any]:
        """The running totals as they stood at the end of a second (all 0 before the engine's first)."""
        at = int(self.stamps.searchsorted(second, side="right")) - 1
        return self.seconds["totals"][self.order[at]] if at >= 0 else np.zeros_like(self.totals)

    def rows_at(self, seconds: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
        """For each second the row last written up to its end, and whether there is one."""
        at = self.stamps.searchsorted(seconds, side="right") - 1
        if not len(self.order):
            return np.zeros(len(seconds), np.int64), np.zeros(len(seconds), bool)
        return self.order[at], at >= 0

    def totals_at(self, seconds: IntArray, places: IntArray) -> NDArray[np.float64]:
        """Some of the running totals at the end of each second; shape (seconds, places)."""
        rows, known = self.rows_at(seconds)
        found = self.seconds["totals"][rows.reshape(-1, *[1] * places.ndim), places]
        return np.where(known.reshape(-1, *[1] * places.ndim), found, 0.0)


@dataclass(frozen=True)
class EngineAway:
    """An engine that cannot be read: ``gone`` (it was there) or not yet there."""

    index: int
    gone: bool


class EngineReader:
    """Opens an engine's files when they appear. alive(pid): whether a process runs."""

    def __init__(self, session: str, index: int, classes: int, alive: Callable[[int], bool]) -> None:
        self.index = index
        self._paths = snapshot_path(session, index), layout.live_path(session, index)
        self._classes, self._alive = classes, alive
        self._columns: np.ndarray[Any, Any] | None = None
        self._snapshot: Snapshot | None = None

    def read(self) -> EngineColumns | EngineAway:
        """What is there now."""
        if self._columns is None:
            self._columns = layout.open_file(self._paths[1], self._classes)
        if self._snapshot is None:
            self._snapshot = Snapshot.open(self._paths[0])
        columns, snapshot = self._columns, self._snapshot
        if columns is None or snapshot is None:
            return EngineAway(self.index, gone=False)
        if not self._alive(int(columns["head"]["pid"][0])):
            self._columns = self._snapshot = None  # another may come
            return EngineAway(self.index, gone=True)
        return EngineColumns(self.index, snapshot, *copy(columns))

    def remove(self) -> None:
        """Remove the file: vLLM kills an engine that does not stop at once."""
        self._paths[1].unlink(missing_ok=True)


def copy(columns: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    """The columns of EngineColumns as they were between two writes."""
    version = columns["head"]["version"]
    for _ in range(TRIES):
        before = int(version[0])
        head, totals = columns["head"][0].copy(), columns["totals"][0].copy()
        count = int(head["steps"])
        last = np.arange(max(0, count - KEPT), count) % layout.STEPS
        steps, requests = columns["steps"][0][last], columns["requests"][0].copy()
        stamps = columns["seconds"][0]["second"].copy()
        if before % 2 == 0 and before == int(version[0]):
            break
    order = np.argsort(stamps)
    order = order[stamps[order] > 0]
    return head, totals, steps, requests[requests["number"] > 0], columns["seconds"][0], order, stamps[order]


def process_alive(pid: int) -> bool:
    """Whether a process runs (a dead one that nobody has fetched does not)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def second_of(now_ns: int) -> int:
    """The second a moment lies in, as the writer counts them."""
    return now_ns // NS_PER_S


def overdue_by(snapshot: Snapshot, now_ns: int) -> tuple[IntArray, IntArray, IntArray]:
    """Per live request: class index, nanoseconds past its deadline (negative: none), and 1 when it has output."""
    used = snapshot.used
    slo = snapshot.slo_index[:used].copy()
    late = now_ns - snapshot.deadline_ns[:used]
    started = (snapshot.first_ns[:used] > 0).astype(np.int64)
    here = slo >= 0
    return slo[here], late[here], started[here]
