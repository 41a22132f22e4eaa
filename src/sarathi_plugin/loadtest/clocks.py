"""Monotonic clocks of two machines, which share no origin, compared by asking each other for the time."""

from __future__ import annotations

from dataclasses import dataclass

EXCHANGES = 8
"""Questions to each worker: the quickest answers count, so that a few slow ones do no harm."""


@dataclass(slots=True)
class ClockBounds:
    """What answered questions prove: another clock is ahead of ours by ``low_ns`` to ``high_ns``.

    Cristian's algorithm (Distributed Computing 3, 1989), with the bounds of all exchanges intersected.
    """

    low_ns: int | None = None
    high_ns: int | None = None
    exchanges: int = 0

    def add(self, asked_ns: int, there_ns: int, back_ns: int) -> None:
        """A question sent at ``asked_ns``, answered at ``there_ns`` on the other clock, and back at ``back_ns``."""
        low, high = there_ns - back_ns, there_ns - asked_ns
        self.low_ns = low if self.low_ns is None else max(self.low_ns, low)
        self.high_ns = high if self.high_ns is None else min(self.high_ns, high)
        self.exchanges += 1

    @property
    def ahead_ns(self) -> int:
        """How far the other clock is ahead: 0 when it may be the same one, as it is on one machine."""
        low, high = self.low_ns or 0, self.high_ns or 0
        return 0 if low <= 0 <= high else (low + high) // 2

    @property
    def error_ns(self) -> int:
        """Most that ``ahead_ns`` can be wrong by."""
        return max((self.high_ns or 0) - self.ahead_ns, self.ahead_ns - (self.low_ns or 0))
