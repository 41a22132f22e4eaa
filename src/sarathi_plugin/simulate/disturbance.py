"""Machines that are not as steady as their profile: a slowdown from some moment on, single steps far too long."""

from __future__ import annotations

from dataclasses import dataclass

_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """What multiplies the duration of a step; nothing by default.

    slow_from_ns: time after the start of the trace from which every step takes ``slowdown`` times as long: another
    tenant came (None: never). outlier_share: share of steps that take ``outlier_factor`` times as long. seed: which
    steps these are.
    """

    slow_from_ns: int | None = None
    slowdown: float = 1.0
    outlier_share: float = 0.0
    outlier_factor: float = 1.0
    seed: int = 0

    def factor(self, step: int, now_ns: int) -> float:
        """For the step of this number that begins at ``now_ns``: by these two alone, whoever asks in what order."""
        found = 1.0
        if self.slow_from_ns is not None and now_ns >= self.slow_from_ns:
            found *= self.slowdown
        if self.outlier_share and _uniform(self.seed, step) < self.outlier_share:
            found *= self.outlier_factor
        return found


def _uniform(seed: int, step: int) -> float:
    """A number in [0, 1) that belongs to the pair (the finaliser of SplitMix64, Steele, Lea and Flood 2014)."""
    mixed = (seed * 0xD1342543DE82EF95 + (step + 1) * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed ^ (mixed >> 31)) / (1 << 64)
