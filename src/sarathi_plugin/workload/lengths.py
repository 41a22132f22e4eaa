"""How long prompts and answers are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sarathi_plugin.core import IntArray

Z90 = 1.2815515655446004
"""The 90th percentile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """Lognormal lengths in tokens, given by median and 90th percentile. Raises ConfigError unless 0 < P50 < P90."""

    median: float
    p90: float

    def __post_init__(self) -> None:
        if not 0 < self.median < self.p90:
            raise ConfigError(f"A length needs 0 < median < P90, not {self.median} and {self.p90}.")

    def sample(
        self,
        count: int,
        rng: np.random.Generator,
        *,
        scale: float = 1.0,
        low: int = 1,
        high: int | None = None,
    ) -> list[int]:
        """So many lengths, multiplied by ``scale`` and then clipped to [low, high]."""
        sigma = math.log(self.p90 / self.median) / Z90
        drawn = rng.lognormal(math.log(self.median), sigma, count) * scale
        return [int(n) for n in drawn.round().clip(low, high)]


@dataclass(frozen=True, slots=True)
class LengthPair:
    """Prompt and output lengths of a kind of traffic."""

    prompt: LengthDistribution
    output: LengthDistribution


SHAREGPT = LengthPair(LengthDistribution(1730, 5696), LengthDistribution(415, 834))
"""ShareGPT, conversations up to 8k tokens, Llama-2 tokenizer. Source: median and P90 of the 30,731 rows of
``sharegpt_8k_filtered_stats_llama2_tokenizer.csv`` in project-etalon/etalon."""


class Figures(NamedTuple):
    """What is published about a set of lengths, tokens. ``p99`` is None where the source does not give it."""

    median: float
    p90: float
    std: float
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class QuantileLengths:
    """Lengths drawn from a quantile function: straight lines between knots (percent, tokens).

    Two parameters cannot hold a median, a P90 and a standard deviation at once, as a lognormal shows on every public
    trace; a monotone quantile function can, and is bounded. Raises ConfigError unless the knots run from 0 to
    100 percent in ascending order, with tokens of at least one that never fall.
    """

    knots: tuple[tuple[float, int], ...]
    figures: Figures | None = None

    def __post_init__(self) -> None:
        percents = [percent for percent, _ in self.knots]
        tokens = [count for _, count in self.knots]
        if len(percents) < 2 or percents != sorted(set(percents)) or (percents[0], percents[-1]) != (0, 100):
            raise ConfigError(f"Knots of a quantile function ascend from 0 to 100 percent, not {percents}.")
        if tokens != sorted(tokens) or tokens[0] < 1:
            raise ConfigError(f"Tokens at the knots must not fall and be at least one, not {tokens}.")

    def at(self, probability: NDArray[np.float64]) -> IntArray:
        """The length below which a share ``probability`` (0 to 1) of all lengths lies, same shape."""
        percents, tokens = zip(*self.knots, strict=True)
        lengths: IntArray = np.interp(probability * 100, percents, tokens).round().astype(np.int64)
        return lengths


@dataclass(frozen=True, slots=True)
class LengthModel:
    """Prompt and output lengths of a kind of traffic, independent of each other (as in both public traces).

    max_total: prompt and output together hold no more; the output is cut, as a model at its length limit would.
    source: where the figures come from.
    """

    prompt: QuantileLengths
    output: QuantileLengths
    max_total: int
    source: str

    def __post_init__(self) -> None:
        if self.prompt.knots[-1][1] >= self.max_total:
            raise ConfigError(f"The longest prompt leaves no room for output in {self.max_total} tokens.")

    def at(
        self, prompt_probability: NDArray[np.float64], output_probability: NDArray[np.float64]
    ) -> tuple[IntArray, IntArray]:
        """Prompt and output lengths at these places of their distributions (0 to 1), same shapes."""
        prompts = self.prompt.at(prompt_probability)
        return prompts, np.minimum(self.output.at(output_probability), self.max_total - prompts)


def knots(text: str) -> tuple[tuple[float, int], ...]:
    """Knots written as "percent:tokens percent:tokens ..."."""
    pairs = (pair.split(":") for pair in text.split())
    return tuple((float(percent), int(tokens)) for percent, tokens in pairs)
