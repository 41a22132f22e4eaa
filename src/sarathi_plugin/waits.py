"""How long first tokens take, learned as they come.

What gap mode may let a prompt wait for shorter ones, and for whom it gives late gaps away.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

RECENT = 1024
"""First tokens remembered."""

USUAL = 0.9
"""One in ten takes longer than usual. Overtaking stops there, so the tail up to P99 stays that of arrival order."""


class Waits:
    """usual_ns: nine of ten recent first tokens came within it after arrival; 0 before any."""

    def __init__(self) -> None:
        self.usual_ns = 0
        self._waits: deque[int] = deque(maxlen=RECENT)
        self._ranked: list[int] = []
        self._fresh = 0

    def note(self, wait_ns: int) -> None:
        """A first token came so long after its request. The figures are worked out anew with each sixteenth of them."""
        self._waits.append(wait_ns)
        self._fresh += 1
        if self._fresh * 16 >= len(self._waits):
            self._fresh = 0
            self._ranked = sorted(self._waits)
            self.usual_ns = self._ranked[int(USUAL * (len(self._ranked) - 1))]

    def share_within(self, wait_ns: float) -> float:
        """Share of recent first tokens that came sooner after their requests; 1 before any."""
        return bisect_left(self._ranked, wait_ns) / len(self._ranked) if self._ranked else 1.0
