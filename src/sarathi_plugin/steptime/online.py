"""The step-time model that learns while it serves."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.core import NS_PER_S, StepShape
from sarathi_plugin.steptime.features import FEATURES, SCALE, features, solve_non_negative

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PRIOR = (0.02, 0.01, 0.02, 0.5, 0.02)
"""Seconds per scaled feature before anything was seen: 20 ms a step, 0.5 ms a prompt token. Slow on purpose: the
first chunks are small, and the first few steps correct it."""

PRIOR_WEIGHT = 1e-3
FORGETTING = 0.995
"""Weight of the past per step: the memory is about 200 steps, so a machine that slows down is followed in seconds."""

READY_PREFILLS = 6
REFIT_EVERY = 8
SURPRISE = 1.0
"""A step that takes longer than predicted by this share, or carries more prompt tokens than any before, is learned at
once: the steps planned meanwhile would repeat the mistake."""

RESIDUALS = 128
MARGIN_QUANTILE = 0.9
MARGIN_RANGE = (0.02, 0.5)
"""A margin above one half makes chunks tiny and starves prompts, which costs more than a late token."""

OUTLIER = 4.0
"""A step longer than this multiple of its prediction is learned as if it took that long: one hiccup of another
process does not unlearn the machine, a lasting slowdown is followed within a few steps."""


STAIRS = (*range(0, 512, 32), *range(512, 1024, 64), *range(1024, 2048, 128), *range(2048, 8193, 512))
"""Edges of the classes of step sizes (total tokens, edge included in the class below) that have a height each."""

STAIR_OF = [bisect_left(STAIRS, tokens) for tokens in range(STAIRS[-1] + 1)]
YOUNG = 64
"""Steps in which the line still moves much: what then looks like an outlier or a stair is its own error."""

STAIR_PRIOR = 4.0
"""Steps' worth of belief that a stair is where the straight line says."""

FLAT = 0.03
"""Steps nearer to the line than this share are on it: a machine without tiles shall not seem to have some."""

STAIR_LIMIT = 0.5
"""A tile costs less than this share of a step; what exceeds it is no tile."""

STAIR_RATE = 0.1
"""How fast a stair moves once many steps were seen on it."""


class Staircase:
    """What the straight line misses, by total tokens: matrix products work in tiles.

    On an A100 a step of 264 tokens takes 36 % longer than one of 256. heights: share above the line, per class.
    """

    def __init__(self) -> None:
        self.heights = [0.0] * (len(STAIRS) + 1)
        self._seen = [STAIR_PRIOR] * (len(STAIRS) + 1)

    def height(self, tokens: int) -> float:
        """By what share a step of so many tokens exceeds the line."""
        return self.heights[STAIR_OF[tokens] if tokens < len(STAIR_OF) else -1]

    def note(self, tokens: int, residual: float) -> None:
        """A step of so many tokens exceeded the line by the share ``residual``."""
        stair = STAIR_OF[tokens] if tokens < len(STAIR_OF) else -1
        self._seen[stair] += 1
        residual = min(STAIR_LIMIT, max(-STAIR_LIMIT, residual)) if abs(residual) > FLAT else 0.0
        self.heights[stair] += max(STAIR_RATE, 1 / self._seen[stair]) * (residual - self.heights[stair])


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
        self._gram = np.zeros((len(FEATURES), len(FEATURES)))
        self._moment = np.zeros(len(FEATURES))
        self._c = tuple(coefficients)
        self._stairs = Staircase()
        self._residuals: deque[float] = deque(maxlen=RESIDUALS)
        self._margin = margin
        self._steps = YOUNG if trained else 0
        self._unfitted = 0
        self._prefills = READY_PREFILLS if trained else 0
        self._seen = None if trained else 0
        self._refits = False

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
    def seen_tokens(self) -> int | None:
        """Most prompt tokens of a step it has learned from; None when it started from this machine's figures."""
        return self._seen

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
        return int(self._line(shape) * (1 + self._stairs.height(shape[1] + shape[3])) * NS_PER_S)

    def predict_many_ns(self, shape: StepShape, tokens: Sequence[int], pairs: Sequence[float]) -> list[int]:
        """``predict_ns`` of the decodes of a step with each of so many prompt tokens and query-key pairs, in one go."""
        (c3, c4), (per3, per4) = self._c[3:], SCALE[3:]
        decodes, base = shape.decode_tokens, self._line(StepShape(*shape[:3]))
        heights, most = self._stairs.heights, len(STAIR_OF)
        found = []
        for count, pair in zip(tokens, pairs, strict=True):
            total = decodes + count
            height = heights[STAIR_OF[total] if total < most else -1]
            found.append(int((base + c3 * count / per3 + c4 * pair / per4) * (1 + height) * NS_PER_S))
        return found

    def _line(self, shape: StepShape) -> float:
        c0, c1, c2, c3, c4 = self._c
        return (
            c0
            + c1 * shape.decode_tokens / SCALE[1]
            + c2 * shape.decode_context / SCALE[2]
            + c3 * shape.prefill_tokens / SCALE[3]
            + c4 * shape.prefill_attention / SCALE[4]
        )

    def learn(self, steps: Sequence[tuple[StepShape, int]]) -> None:
        """Learn from steps that each ran alone on the engine: their shapes and durations in nanoseconds, in order."""
        steps = [step for step in steps if step[1] > 0 and step[0].kind != "empty"]
        at = 0
        while at < len(steps):
            count = len(steps) - at if self.ready else 1
            self._learn(steps[at : at + count])
            at += count

    def _learn(self, steps: Sequence[tuple[StepShape, int]]) -> None:
        seconds = [duration_ns / NS_PER_S for _, duration_ns in steps]
        if self.ready:
            seconds = [self._compare(shape, took) for (shape, _), took in zip(steps, seconds, strict=True)]
        count = len(steps)
        most = max(shape.prefill_tokens for shape, _ in steps)
        if self._seen is not None and most > self._seen:
            self._seen, self._refits = most, True
        times = np.array(seconds)
        rows = np.array([features(shape) for shape, _ in steps])
        weights = FORGETTING ** np.arange(count - 1, -1, -1) / np.maximum(times, 1e-4)
        weighted = (rows * weights[:, None]).T
        fade = FORGETTING**count
        self._gram = fade * self._gram + weighted @ rows
        self._moment = fade * self._moment + weighted @ times
        self._prefills += sum(shape.prefill_tokens > 0 for shape, _ in steps)
        self._steps += count
        self._unfitted += count
        if self._unfitted >= REFIT_EVERY or self._refits or not self.ready:
            self._refit()

    def _compare(self, shape: StepShape, seconds: float) -> float:
        """Note by how much a step missed its prediction; returns its time as it is learned."""
        line = self._line(shape)
        tokens = shape.decode_tokens + shape.prefill_tokens
        predicted = line * (1 + self._stairs.height(tokens))
        residual = seconds / max(predicted, 1e-9) - 1
        self._residuals.append(residual)
        self._refits |= residual > SURPRISE
        if self._steps >= YOUNG:
            seconds = min(seconds, OUTLIER * predicted + 1e-9)
            self._stairs.note(tokens, seconds / max(line, 1e-9) - 1)
        return seconds

    def _refit(self) -> None:
        self._unfitted, self._refits = 0, False
        gram = self._gram + self._prior_gram
        moment = self._moment + self._prior_gram @ self._prior
        self._c = tuple(solve_non_negative(gram, moment).tolist())
        if self._residuals:
            low, high = MARGIN_RANGE
            ranked = sorted(self._residuals)
            self._margin = min(high, max(low, ranked[int(MARGIN_QUANTILE * (len(ranked) - 1))]))
