"""The step-time model that learns while it serves."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.core import NS_PER_S, StepShape
from sarathi_plugin.steptime.features import FEATURES, SCALE, features, solve_non_negative

if TYPE_CHECKING:
    from collections.abc import Mapping

PRIOR = (0.02, 0.01, 0.02, 0.5, 0.02)
"""Seconds per scaled feature before anything was seen: 20 ms a step, 0.5 ms a prompt token. Slow on purpose: the
first chunks are small, and the first few steps correct it."""

PRIOR_WEIGHT = 1e-3
FORGETTING = 0.995
"""Weight of the past per step: the memory is about 200 steps, so a machine that slows down is followed in seconds."""

READY_PREFILLS = 6
REFIT_EVERY = 8
RESIDUALS = 128
MARGIN_QUANTILE = 0.9
MARGIN_RANGE = (0.02, 0.5)
"""A margin above one half makes chunks tiny and starves prompts, which costs more than a late token."""

OUTLIER = 4.0
"""A step longer than this multiple of its prediction is learned as if it took that long: one hiccup of another
process does not unlearn the machine, a lasting slowdown is followed within a few steps."""


class OnlineModel:
    """Weighted least squares with forgetting and coefficients >= 0, and a margin from recent residuals.

    Steps are weighted by 1 / duration: between absolute errors (long steps rule) and relative ones (the sum comes out
    too small). coefficients, weight: where to start, and how firmly; trained: they come from this machine already.
    """

    def __init__(
        self,
        coefficients: tuple[float, ...] = PRIOR,
        weight: float = PRIOR_WEIGHT,
        *,
        trained: bool = False,
        margin: float = MARGIN_RANGE[1],
    ) -> None:
        self._start = {
            "coefficients": list(coefficients),
            "weight": weight,
            "trained": trained,
            "margin": margin,
        }
        self._prior = np.array(coefficients, np.float64)
        self._prior_gram = np.eye(len(FEATURES)) * weight
        self._gram = [[0.0] * len(FEATURES) for _ in FEATURES]
        self._moment = [0.0] * len(FEATURES)
        self._c = tuple(coefficients)
        self._residuals: deque[float] = deque(maxlen=RESIDUALS)
        self._margin = margin
        self._steps = 0
        self._prefills = READY_PREFILLS if trained else 0

    def state(self) -> dict[str, Any]:
        """What it started from, as plain data: ``OnlineModel.from_state`` starts the same again."""
        return self._start

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> OnlineModel:
        """A model that starts as another did. Raises KeyError or TypeError when it is no such state."""
        return cls(
            tuple(state["coefficients"]), state["weight"], trained=state["trained"], margin=state["margin"]
        )

    @property
    def ready(self) -> bool:
        """Whether enough steps with prompt tokens were seen."""
        return self._prefills >= READY_PREFILLS

    @property
    def margin(self) -> float:
        """90 % of recent steps exceeded their prediction by at most this share."""
        return self._margin

    @property
    def coefficients(self) -> dict[str, float]:
        """Seconds per unit of each (unscaled) feature."""
        return {name: c / scale for name, c, scale in zip(FEATURES, self._c, SCALE, strict=True)}

    def predict_ns(self, shape: StepShape) -> int:
        """Expected duration of a step of this shape, nanoseconds."""
        c0, c1, c2, c3, c4 = self._c
        seconds = (
            c0
            + c1 * shape.decode_tokens / SCALE[1]
            + c2 * shape.decode_context / SCALE[2]
            + c3 * shape.prefill_tokens / SCALE[3]
            + c4 * shape.prefill_attention / SCALE[4]
        )
        return int(seconds * NS_PER_S)

    def update(self, shape: StepShape, duration_ns: int) -> None:
        """Learn from one step that ran alone on the engine for ``duration_ns``."""
        if duration_ns <= 0 or shape.kind == "empty":
            return
        predicted = self.predict_ns(shape)
        if self.ready:
            self._note_residual(duration_ns / max(predicted, 1) - 1)
            duration_ns = min(duration_ns, int(OUTLIER * predicted) + 1)
        seconds = duration_ns / NS_PER_S
        self._accumulate(features(shape), seconds, 1 / max(seconds, 1e-4))
        self._steps += 1
        if shape.prefill_tokens:
            self._prefills += 1
        if self._steps % REFIT_EVERY == 0 or not self.ready:
            gram = np.array(self._gram) + self._prior_gram
            moment = np.array(self._moment) + self._prior_gram @ self._prior
            self._c = tuple(solve_non_negative(gram, moment).tolist())

    def _accumulate(self, row: tuple[float, ...], seconds: float, weight: float) -> None:
        # Plain floats: at this size a numpy call costs more than its arithmetic, and this runs at every step.
        for i, (sums, x) in enumerate(zip(self._gram, row, strict=True)):
            scaled = weight * x
            self._gram[i] = [FORGETTING * g + scaled * y for g, y in zip(sums, row, strict=True)]
            self._moment[i] = FORGETTING * self._moment[i] + scaled * seconds

    def _note_residual(self, residual: float) -> None:
        self._residuals.append(residual)
        if self._steps % REFIT_EVERY == 0:
            low, high = MARGIN_RANGE
            ranked = sorted(self._residuals)
            self._margin = min(high, max(low, ranked[int(MARGIN_QUANTILE * (len(ranked) - 1))]))
