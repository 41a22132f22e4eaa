"""Watches the process that sends: how busy it is, and whether its clocks can be trusted."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from sarathi_plugin.core import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_S = 5


class ClientWatch:
    """Call ``sample`` about once a second from the start of a run to its end.

    The clocks: monotonic, wall, and CPU time of this process (all threads), nanoseconds.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], int] = time.time_ns,
        cpu: Callable[[], int] = time.process_time_ns,
    ) -> None:
        self._clock, self._wall, self._cpu = clock, wall, cpu
        self._samples: deque[tuple[int, int]] = deque([(clock(), cpu())])
        self._offset_ns = wall() - clock()
        self._busiest = 0.0
        self._windows = 0

    def sample(self) -> None:
        """Note the CPU time of the last seconds."""
        now = (self._clock(), self._cpu())
        self._samples.append(now)
        while now[0] - self._samples[1][0] >= WINDOW_S * NS_PER_S:
            self._samples.popleft()
        if now[0] - self._samples[0][0] >= WINDOW_S * NS_PER_S:
            self._windows += 1
            self._busiest = max(self._busiest, self._share(now))

    @property
    def cpu(self) -> float:
        """Cores used in the busiest five seconds; over all of it when it was shorter."""
        return self._busiest if self._windows else self._share((self._clock(), self._cpu()))

    @property
    def clock_step_ns(self) -> int:
        """How far the wall clock has moved against the monotonic one since the start."""
        return self._wall() - self._clock() - self._offset_ns

    def _share(self, now: tuple[int, int]) -> float:
        elapsed = now[0] - self._samples[0][0]
        return (now[1] - self._samples[0][1]) / elapsed if elapsed > 0 else 0.0
