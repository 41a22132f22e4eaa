"""How long first tokens usually take, learned as answers end: what gap mode may let a prompt wait for shorter ones."""

from __future__ import annotations

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
        self._fresh = 0

    def note(self, wait_ns: int) -> None:
        """A first token came so long after its request. The figure is worked out anew with each sixteenth of them."""
        self._waits.append(wait_ns)
        self._fresh += 1
        if self._fresh * 16 >= len(self._waits):
            self._fresh = 0
            ranked = sorted(self._waits)
            self.usual_ns = ranked[int(USUAL * (len(ranked) - 1))]
