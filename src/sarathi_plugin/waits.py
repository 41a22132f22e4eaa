"""How long first tokens take, learned as they come.

What gap mode may let a prompt wait for shorter ones, and for whom it gives late gaps away.
"""

from __future__ import annotations

from collections import deque

RECENT = 1024
"""First tokens remembered."""

USUAL = 0.9
"""One in ten takes longer than usual. Overtaking stops there, so the tail up to P99 stays that of arrival order."""

RARE = 0.98
"""One in fifty takes longer than this: the tail around P99, for which the late gaps that a P99 forgives are kept."""


class Waits:
    """Nine of ten recent first tokens came within usual_ns after arrival, 98 of 100 within rare_ns; 0 before any."""

    def __init__(self) -> None:
        self.usual_ns = 0
        self.rare_ns = 0
        self._waits: deque[int] = deque(maxlen=RECENT)
        self._fresh = 0

    def note(self, wait_ns: int) -> None:
        """A first token came so long after its request. The figures are worked out anew with each sixteenth of them."""
        self._waits.append(wait_ns)
        self._fresh += 1
        if self._fresh * 16 >= len(self._waits):
            self._fresh = 0
            ranked = sorted(self._waits)
            self.usual_ns = ranked[int(USUAL * (len(ranked) - 1))]
            self.rare_ns = ranked[int(RARE * (len(ranked) - 1))]
