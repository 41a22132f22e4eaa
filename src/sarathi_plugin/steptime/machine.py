"""A profile as a function from steps to durations: what the simulator's clock runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import NS_PER_S, StepShape
from sarathi_plugin.steptime.features import FEATURES, features, solve_non_negative
from sarathi_plugin.steptime.online import OnlineModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sarathi_plugin.steptime.profile import StepTimeProfile

MARGIN_QUANTILE = 0.9
TABLE_TOKENS = 1 << 15
"""Step sizes looked up in a table; beyond it its last slope goes on."""

PROFILE_WEIGHT = 1.0
"""How many recent one-second steps a loaded profile counts for before new steps outweigh it."""


class ProfileModel:
    """A StepTimeModel that knows the machine and learns nothing."""

    ready = True

    def __init__(self, profile: StepTimeProfile) -> None:
        self.profile = profile
        self._linear: list[float] = (linear_seconds(profile, TABLE_TOKENS) * NS_PER_S).tolist()
        self._slope = self._linear[-1] - self._linear[-2]
        self._decode = profile.decode_step_s * NS_PER_S
        self._row = profile.decode_row_s * NS_PER_S
        self._context = profile.decode_context_token_s * NS_PER_S
        self._prefill = profile.prefill_step_s * NS_PER_S
        self._token = profile.prefill_token_s * NS_PER_S
        self._pair = profile.prefill_pair_s * NS_PER_S
        self._quantiles = (profile.residuals.decode, profile.residuals.prefill)

    @property
    def margin(self) -> float:
        """Share by which 90 % of steps with prompt tokens stay under their prediction."""
        quantiles = self.profile.residuals.prefill
        return max(0.0, float(np.quantile(quantiles, MARGIN_QUANTILE)) - 1) if quantiles else 0.0

    def predict_ns(self, shape: StepShape) -> int:
        """Expected duration of a step of this shape, nanoseconds, without host time."""
        return int(self._seconds_ns(shape))

    def _seconds_ns(self, shape: StepShape) -> float:
        rows, decodes, context, prefill, pairs = shape
        tokens = decodes + prefill
        if not tokens:
            return 0.0
        if tokens <= TABLE_TOKENS:
            found = self._linear[tokens]
        else:
            found = self._linear[-1] + (tokens - TABLE_TOKENS) * self._slope
        if rows:
            found += self._decode + self._row * rows + self._context * context
        if prefill:
            found += self._prefill + self._token * prefill + self._pair * pairs
        return found

    def draw_ns(self, shape: StepShape, uniform: float) -> int:
        """A duration as it may happen: the prediction times a residual drawn by ``uniform`` in [0, 1)."""
        quantiles = self._quantiles[1 if shape.prefill_tokens else 0]
        expected = self._seconds_ns(shape)
        if quantiles:
            at = uniform * (len(quantiles) - 1)
            low = int(at)
            expected *= quantiles[low] + (at - low) * (quantiles[low + 1] - quantiles[low])
        return int(expected)

    def learn(self, steps: Sequence[tuple[StepShape, int]]) -> None:
        """Nothing to learn: the profile is the machine."""


def linear_seconds(profile: StepTimeProfile, tokens: int) -> NDArray[np.float64]:
    """The token table at 0, 1, ... ``tokens``: seconds, shape (tokens + 1,); 0 for no token."""
    known = np.array([n for n, _ in profile.linear_s], np.float64)
    times = np.array([s for _, s in profile.linear_s], np.float64)
    wanted = np.arange(tokens + 1, dtype=np.float64)
    found = np.interp(wanted, known, times)
    if len(known) > 1:
        # The staircase would give the last piece alone any slope: take the mean one of the upper half.
        half = len(known) // 2 if len(known) > 2 else 0
        slope = (times[-1] - times[half]) / (known[-1] - known[half])
        beyond = wanted > known[-1]
        found[beyond] = times[-1] + (wanted[beyond] - known[-1]) * slope
    found[0] = 0.0
    return found


def grid() -> list[StepShape]:
    """Step shapes a server meets: up to 256 decodes at up to 8k context, chunks up to 4096 tokens."""
    found = [StepShape(0, 0, 0, chunk, chunk * (at + chunk / 2)) for chunk in CHUNKS for at in (0, 4096)]
    for rows in (1, 4, 16, 64, 128, 256):
        for context in (256, 1024, 4096):
            decode = StepShape(rows, rows, rows * context)
            found.append(decode)
            found += [decode._replace(prefill_tokens=c, prefill_attention=c * (1024 + c / 2)) for c in CHUNKS]
    return found


CHUNKS = (64, 128, 256, 512, 1024, 2048, 4096)


def online_from(profile: StepTimeProfile) -> OnlineModel:
    """A model that starts from a profile and learns on: its coefficients fitted to the profile over a grid of steps."""
    model = ProfileModel(profile)
    host_s = profile.host_s
    shapes = grid()
    seconds = [model.predict_ns(shape) / NS_PER_S + host_s for shape in shapes]
    coefficients = fit_features(shapes, seconds)
    return OnlineModel(tuple(coefficients), PROFILE_WEIGHT, trained=True, margin=max(model.margin, 0.02))


def fit_features(shapes: Sequence[StepShape], seconds: Sequence[float]) -> list[float]:
    """Scaled coefficients >= 0 that fit durations with weight 1 / duration (see ``features``)."""
    rows = np.array([features(shape) for shape in shapes], np.float64)
    times = np.array(seconds, np.float64)
    weighted = rows / times[:, None]
    gram = rows.T @ weighted + 1e-12 * np.eye(len(FEATURES))
    found: list[float] = solve_non_negative(gram, weighted.T @ times).tolist()
    return found
