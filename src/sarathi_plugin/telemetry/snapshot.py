"""Deadlines of live requests in shared memory, readable while a step runs.

Per-step statistics leave the engine only after a step: a stall could not be seen while it lasts. The engine writes
the next deadline of every live request into a small memory-mapped file; every API server reads it a few times a
second and computes what is overdue from ``deadline < now``. All values are aligned int64: the writer takes no lock,
and a reader sees each value before or after a change, never half of it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sarathi_plugin.core import NS_PER_S, IntArray

ROWS = 65_536
"""Live requests an engine can track; beyond it requests are served but not measured (and counted as such)."""

SECONDS = 64
"""Ring of per-second maxima behind the longest stall of the last minute."""

_MAGIC, _PID, _USED, _TOTAL = range(4)
_HEADER = 8
_LENGTH = _HEADER + 2 * SECONDS + 3 * ROWS
FREE = -1


@dataclass(frozen=True, slots=True)
class Overdue:
    """Requests of one SLO class past their next deadline now, and how long the worst has been."""

    count: int
    oldest_ns: int


def snapshot_path(session: str, engine_index: int) -> Path:
    """Where engine ``engine_index`` of the server ``session`` keeps its snapshot (in memory where that exists)."""
    shared = Path("/dev/shm")  # noqa: S108 - a memory file system, named on purpose
    folder = shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
    return folder / f"{own_prefix()}{session}-{engine_index}"


def own_prefix() -> str:
    """How the names of our files begin: user and PID namespace.

    Containers may share memory (``--ipc=host``) and not processes: whether a process of another one lives, nobody here
    can tell.
    """
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    return f"sarathi-{os.getuid()}-{namespace}-"


class Snapshot:
    """The columns themselves. One writer (the engine), any number of readers (API servers).

    deadline_ns: next deadline per row. slo_index: the row's class, FREE when nobody lives there. first_ns: when its
    first token came, 0 before.
    """

    def __init__(self, buffer: IntArray, path: Path | None) -> None:
        self._header = buffer[:_HEADER]
        ring = buffer[_HEADER : _HEADER + 2 * SECONDS]
        self._ring_second, self._ring_stall = ring[:SECONDS], ring[SECONDS:]
        columns = buffer[_HEADER + 2 * SECONDS :].reshape(3, ROWS)
        self.deadline_ns, self.slo_index, self.first_ns = columns
        self.path = path

    @classmethod
    def private(cls) -> Snapshot:
        """Columns that nobody else reads: simulation, tests, a file system that refuses."""
        snapshot = cls(np.zeros(_LENGTH, np.int64), None)
        snapshot._start()
        return snapshot

    @classmethod
    def create(cls, path: Path) -> Snapshot:
        """The writer's side. The file is readable by this user only. Raises OSError."""
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, _LENGTH * 8)
            memory = mmap.mmap(descriptor, _LENGTH * 8)
        finally:
            os.close(descriptor)
        snapshot = cls(np.frombuffer(memory, np.int64), path)
        snapshot._start()
        return snapshot

    @classmethod
    def open(cls, path: Path) -> Snapshot | None:
        """The reader's side; None while the engine has not made the file."""
        try:
            with path.open("rb") as file:
                memory = mmap.mmap(file.fileno(), _LENGTH * 8, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return None
        buffer = np.frombuffer(memory, np.int64)
        return cls(buffer, path) if buffer[_MAGIC] == _LENGTH else None

    def _start(self) -> None:
        self.slo_index[:] = FREE
        self._header[_PID] = os.getpid()
        self._header[_MAGIC] = _LENGTH

    def set_extent(self, used: int, total: int) -> None:
        """Rows below ``used`` may be taken; ``total`` requests were ever tracked."""
        self._header[_USED] = used
        self._header[_TOTAL] = total

    @property
    def used(self) -> int:
        """Rows below this may be taken."""
        return int(self._header[_USED])

    @property
    def pid(self) -> int:
        """The engine's process."""
        return int(self._header[_PID])

    def note_stall(self, now_ns: int, stall_ns: int) -> None:
        """Remember a stall that ended now, for the longest one of the last minute."""
        second = now_ns // NS_PER_S
        at = second % SECONDS
        if self._ring_second[at] != second:
            self._ring_stall[at] = 0
            self._ring_second[at] = second
        self._ring_stall[at] = max(self._ring_stall[at], stall_ns)

    def overdue(self, now_ns: int, classes: int) -> list[Overdue]:
        """Per class index: live requests past their deadline now, and the age of the worst."""
        used = self.used
        slo = self.slo_index[:used].copy()
        late = now_ns - self.deadline_ns[:used]
        found = []
        for index in range(classes):
            ages = late[(slo == index) & (late > 0)]
            found.append(Overdue(len(ages), int(ages.max()) if len(ages) else 0))
        return found

    def longest_stall_ns(self, now_ns: int) -> int:
        """Longest stall that ended in the last minute."""
        recent = self._ring_second > now_ns // NS_PER_S - 60
        return int(self._ring_stall[recent].max()) if recent.any() else 0

    def close(self) -> None:
        """Remove the file (writer)."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def remove_stale_snapshots() -> None:
    """Delete files that killed engines of this user left behind, in this container."""
    example = snapshot_path("x", 0)
    for path in example.parent.glob(f"{own_prefix()}*"):
        snapshot = Snapshot.open(path)
        if snapshot is not None and not Path(f"/proc/{snapshot.pid}").exists() and Path("/proc").exists():
            path.unlink(missing_ok=True)
