"""How long prompts and answers are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    import numpy as np

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
