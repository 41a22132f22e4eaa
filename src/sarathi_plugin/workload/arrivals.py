"""When requests arrive: seeded, open-loop, in integer nanoseconds after the start.

Every process is defined at a mean rate of one request per unit of time and scaled afterwards, so that one seed gives
the same pattern at every rate (common random numbers: two rates, or two arms, differ in nothing else).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sarathi_plugin.config import ConfigError, Strict
from sarathi_plugin.core import NS_PER_S

FloatArray = NDArray[np.float64]

LONGEST_NS = 100 * 365 * 86_400 * NS_PER_S
"""No workload takes a hundred years: such a time is a mistake, and ten times as much no clock of nanoseconds holds."""


class Poisson(Strict):
    """Independent requests: exponential gaps, not truncated (a cut tail would raise the rate)."""

    process: Literal["poisson"] = "poisson"

    def unit_times(self, count: int, rng: np.random.Generator) -> FloatArray:
        """So many ascending times at a mean rate of one, from zero on."""
        return rng.exponential(1.0, count).cumsum()


class Constant(Strict):
    """One request every period, the first at zero."""

    process: Literal["constant"] = "constant"

    def unit_times(self, count: int, _rng: np.random.Generator) -> FloatArray:
        """So many ascending times at a rate of one; nothing is drawn."""
        return np.arange(count, dtype=np.float64)


class Gamma(Strict):
    """Bursty requests: gamma-distributed gaps; a coefficient of variation of 1 is Poisson, above it is bursty."""

    process: Literal["gamma"] = "gamma"
    cv: float = Field(
        default=2.0, ge=0.001, le=100, description="Standard deviation of the gaps over their mean."
    )

    def unit_times(self, count: int, rng: np.random.Generator) -> FloatArray:
        """So many ascending times at a mean rate of one, from zero on."""
        return rng.gamma(self.cv**-2, self.cv**2, count).cumsum()


class Ramp(Strict):
    """A Poisson process whose rate goes in a straight line from ``start`` to ``end``, multiples of the mean rate.

    Only the ratio of the two counts: the mean over the workload is the rate asked for.
    """

    process: Literal["ramp"] = "ramp"
    start: float = Field(default=0.5, gt=0, description="Rate at the first request, relative.")
    end: float = Field(default=1.5, gt=0, description="Rate at the last request, relative.")

    def unit_times(self, count: int, rng: np.random.Generator) -> FloatArray:
        """So many ascending times at a mean rate of one over the first ``count`` units; the last rate then stays."""
        first, last = (2 * rate / (self.start + self.end) for rate in (self.start, self.end))
        expected = Poisson().unit_times(count, rng)
        inside = np.minimum(expected, count)
        # The root of first t + (last - first) t^2 / (2 count) = expected, in the form that also holds for a flat ramp.
        root = np.sqrt(first**2 + 2 * (last - first) * inside / count)
        times: FloatArray = 2 * inside / (first + root) + (expected - inside) / last
        return times


class Step(Strict):
    """A Poisson process of constant rate in stages of equal length: ``levels`` are multiples of the mean rate.

    Only the ratios of the levels count: the mean over the workload is the rate asked for.
    """

    process: Literal["step"] = "step"
    levels: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1.0, 3.0), min_length=1, description="Rate of each stage, relative."
    )

    def unit_times(self, count: int, rng: np.random.Generator) -> FloatArray:
        """So many ascending times at a mean rate of one over the first ``count`` units; the last rate then stays."""
        expected = Poisson().unit_times(count, rng)
        rates = np.array(self.levels) / np.mean(self.levels)
        starts = np.arange(len(rates)) * count / len(rates)
        begun = np.concatenate([[0.0], rates[:-1].cumsum() * count / len(rates)])
        stage = np.searchsorted(begun, expected, side="right") - 1
        times: FloatArray = starts[stage] + (expected - begun[stage]) / rates[stage]
        return times


class Diurnal(Strict):
    """A Poisson process whose rate swings as a sine: 1 + amplitude sin, ``cycles`` days within the workload."""

    process: Literal["diurnal"] = "diurnal"
    amplitude: float = Field(default=0.8, ge=0, le=1, description="Swing of the rate round its mean, 0 to 1.")
    cycles: float = Field(default=1.0, gt=0, le=1000, description="Periods within the workload.")

    def unit_times(self, count: int, rng: np.random.Generator) -> FloatArray:
        """So many ascending times at a mean rate of one over every period."""
        expected = Poisson().unit_times(count, rng)
        period = count / self.cycles
        angle = 2 * math.pi / period
        # The expected number at t is t + amplitude / angle (1 - cos angle t) >= t: inverted on a grid, 1/512 period.
        grid = np.linspace(0, expected[-1], 2 + math.ceil(expected[-1] / period * 512))
        return np.interp(expected, grid + self.amplitude / angle * (1 - np.cos(angle * grid)), grid)


ArrivalProcess = Poisson | Constant | Gamma | Ramp | Step | Diurnal


def arrival_times(
    process: ArrivalProcess, rate_per_s: float, count: int, rng: np.random.Generator
) -> list[int]:
    """So many ascending send times, nanoseconds, at a mean rate in requests a second.

    Raises ConfigError for a rate or a count that is not positive, and for times beyond ``LONGEST_NS``.
    """
    if not (rate_per_s > 0 and math.isfinite(rate_per_s)):
        raise ConfigError(f"The arrival rate must be above zero requests a second, not {rate_per_s}.")
    if count < 1:
        raise ConfigError(f"A workload needs at least one request, not {count}.")
    with np.errstate(all="ignore"):
        found = (process.unit_times(count, rng) / rate_per_s * NS_PER_S).round()
    if not found.max() <= LONGEST_NS:
        raise ConfigError(
            f"{count} requests at {rate_per_s:g} a second take more than 100 years to arrive: raise the rate, or "
            "change the arrival process."
        )
    times: list[int] = found.astype(np.int64).tolist()
    return times


def poisson_arrivals(rate_per_s: float, count: int, rng: np.random.Generator) -> list[int]:
    """Send times of a Poisson process. Raises ConfigError as ``arrival_times``."""
    return arrival_times(Poisson(), rate_per_s, count, rng)


def constant_arrivals(rate_per_s: float, count: int) -> list[int]:
    """Send times at a steady rate, the first at zero. Raises ConfigError as ``arrival_times``."""
    return arrival_times(Constant(), rate_per_s, count, np.random.default_rng(0))


class Streams(NamedTuple):
    """Independent generators, so that what one of them draws moves nothing else."""

    arrivals: np.random.Generator
    prompts: np.random.Generator
    outputs: np.random.Generator
    labels: np.random.Generator

    @classmethod
    def of(cls, seed: int, *part: int) -> Streams:
        """The generators of a seed, or of one part under it. Raises ConfigError for a negative seed."""
        if seed < 0:
            raise ConfigError(f"A seed must not be negative, as {seed} is.")
        return cls(
            *(
                np.random.default_rng(child)
                for child in np.random.SeedSequence([seed, *part] if part else seed).spawn(4)
            )
        )
