"""How much lateness an answer forgives: output lengths learned as answers end, and the chance that one is lost.

A request is fluid while at least 0.9 of its deadlines are met (Etalon, arXiv 2407.07000, section 5), so an answer of o
tokens forgives about o / 9 misses: a late start hardly hurts a long answer and ruins a short one. How long an answer
will be nobody knows; how long those before it were is known, per SLO class.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sarathi_plugin.deadlines import FLUID_THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.core import SloClass

FloatArray = NDArray[np.float64]

LONGEST = 4096
"""Output lengths beyond it count as just as long."""

RECENT = 1024
"""Answers remembered per class."""

PRIOR = tuple(int(2 ** (k / 2)) for k in range(6, 22))
"""Sixteen lengths from 8 to 1448, evenly in logarithms: what is expected before any answer was seen."""

PER_MISS = round(FLUID_THRESHOLD / (1 - FLUID_THRESHOLD))
"""Deadlines met that make up for one missed: 9."""

LATENESS = LONGEST // PER_MISS + 1


class Tolerance:
    """Of every SLO class. slos: the classes. index: of a class by name, its place there and in ``survival``."""

    def __init__(self, classes: Sequence[SloClass]) -> None:
        self.slos = tuple(classes)
        self.index = {slo.name: i for i, slo in enumerate(classes)}
        self._lengths = [deque(PRIOR, maxlen=RECENT) for _ in classes]
        self._fresh = [0] * len(self._lengths)
        self._costs: dict[tuple[int, int], tuple[FloatArray, FloatArray]] = {}
        self.survival = np.zeros((len(self._lengths), LONGEST + 2))
        """survival[i, n]: share of answers of class i with at least n tokens; shape (classes, LONGEST + 2)."""
        for i in range(len(self._lengths)):
            self._learn(i)

    def note(self, index: int, tokens: int) -> None:
        """An answer of this class ended on its own with so many tokens."""
        known = self._lengths[index]
        known.append(tokens)
        self._fresh[index] += 1
        if self._fresh[index] * 16 >= len(known):
            self._learn(index)

    def _learn(self, index: int) -> None:
        self._fresh[index] = 0
        lengths = np.minimum(np.array(self._lengths[index]), LONGEST)
        ended = np.bincount(lengths, minlength=LONGEST + 2)
        self.survival[index] = 1 - np.concatenate([[0], np.cumsum(ended)[:-1]]) / len(lengths)
        self._costs = {key: cost for key, cost in self._costs.items() if key[0] != index}

    def lost(self, index: int) -> FloatArray:
        """Chance that a first token late by m = 0, 1, ... periods has lost the request already; shape (LATENESS,)."""
        found: FloatArray = 1 - self.survival[index, 1 : 1 + PER_MISS * LATENESS : PER_MISS]
        return found

    def expected_loss(self, index: int, octave: int) -> FloatArray:
        """The same after a further wait, exponential with a mean of 2 ** (octave / 2) periods; shape (LATENESS,)."""
        return self._after(index, octave)[0]

    def added_loss(self, index: int, octave: int) -> FloatArray:
        """What such a wait adds to the chance of being lost; shape (LATENESS,)."""
        return self._after(index, octave)[1]

    def _after(self, index: int, octave: int) -> tuple[FloatArray, FloatArray]:
        key = (index, octave)
        found = self._costs.get(key)
        if found is None:
            lost = self.lost(index)
            stay = float(np.exp(-(2 ** (-octave / 2))))
            later = [float(lost[-1])]
            for now in lost[-2::-1].tolist():
                later.append((1 - stay) * now + stay * later[-1])
            expected = np.array(later[::-1])
            found = self._costs[key] = expected, np.maximum(expected - lost, 0)
        return found
