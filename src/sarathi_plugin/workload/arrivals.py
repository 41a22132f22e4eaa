"""When requests arrive: seeded, open-loop, in integer nanoseconds after the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S

if TYPE_CHECKING:
    import numpy as np


def poisson_arrivals(rate_per_s: float, count: int, rng: np.random.Generator) -> list[int]:
    """Send times of a Poisson process: exponential gaps, not truncated (a cut tail would raise the rate).

    Raises ConfigError for a rate or a count that is not positive.
    """
    _check(rate_per_s, count)
    return [int(t) for t in (rng.exponential(1.0 / rate_per_s, count).cumsum() * NS_PER_S).round()]


def constant_arrivals(rate_per_s: float, count: int) -> list[int]:
    """Send times at a steady rate, the first at zero. Raises ConfigError as above."""
    _check(rate_per_s, count)
    return [round(i / rate_per_s * NS_PER_S) for i in range(count)]


def _check(rate_per_s: float, count: int) -> None:
    if not rate_per_s > 0:
        raise ConfigError(f"The arrival rate must be above zero requests a second, not {rate_per_s}.")
    if count < 1:
        raise ConfigError(f"A workload needs at least one request, not {count}.")
