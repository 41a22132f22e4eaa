"""What is promised, and when a breach is worth waking somebody.

The objective: 99 % of the requests of every SLO class are fluid (at least 0.9 of their deadlines met), the share that
fluid capacity is defined by. Burn rate: how many times faster than that the error budget is spent. Pairs of windows and
factors are those of the Site Reliability Workbook, chapter 5: the long window shows that it matters, the short one that
it still lasts.
"""

from __future__ import annotations

from dataclasses import dataclass

from sarathi_plugin.deadlines import FLUID_THRESHOLD

OBJECTIVE = 0.99
ERROR_BUDGET = 0.01
THRESHOLD = FLUID_THRESHOLD

FLUIDITY_WINDOWS = ("1m", "5m", "1h")
BURN_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True, slots=True)
class Burn:
    """Both windows must burn faster than ``factor``."""

    short: str
    long: str
    factor: float


FAST_BURN = (Burn("5m", "1h", 14.4), Burn("30m", "6h", 6))
SLOW_BURN = (Burn("2h", "1d", 3), Burn("6h", "3d", 1))
MIN_REQUESTS = 20
"""Fewer requests in the alert's shortest long window say nothing: one that is not fluid is 5 % of them."""

OPEN_STALL_S = 5
PREDICTION_ERROR = 0.5
"""Mean error of predicted step times, as a share of the measured ones, from which chunks are sized wrongly."""

MIN_STEPS_PER_S = 1
