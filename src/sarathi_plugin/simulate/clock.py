"""Virtual time: it passes when the simulation says so."""

from __future__ import annotations

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.engine.parts import Clock

EPOCH_NS = 10 * NS_PER_S
"""Virtual time at the start of a trace. Not zero, which in many columns means "never"."""


class VirtualClock:
    """A clock that is set. ns: now."""

    def __init__(self) -> None:
        self.ns = EPOCH_NS

    def as_clock(self) -> Clock:
        """What the engine's driver reads: monotonic and wall clock are one, and our own code takes no time."""
        return Clock(lambda: self.ns, lambda: self.ns / NS_PER_S, lambda: 0)
