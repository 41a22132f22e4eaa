"""Workloads of random token ids: no two prompts share a prefix, lengths are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.workload.lengths import SHAREGPT, LengthPair
from sarathi_plugin.workload.model import ScheduledRequest, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

FIRST_ID, LAST_ID = 10, 250
"""Token ids that are plain tokens in every tokenizer met so far, byte-level ones included."""


def random_prompt(tokens: int, rng: np.random.Generator) -> tuple[int, ...]:
    """A prompt of exactly so many tokens."""
    return tuple(int(i) for i in rng.integers(FIRST_ID, LAST_ID, tokens))


def synthetic_workload(
    name: str,
    offsets_ns: Sequence[int],
    rng: np.random.Generator,
    *,
    lengths: LengthPair = SHAREGPT,
    scale: float = 1.0,
    max_model_tokens: int = 8192,
    slo_class: str = "",
) -> Workload:
    """One request per send time, lengths drawn from ``lengths`` times ``scale``, clipped to fit the model."""
    half = max_model_tokens // 2
    prompts = lengths.prompt.sample(len(offsets_ns), rng, scale=scale, high=max_model_tokens - half // 4)
    outputs = lengths.output.sample(len(offsets_ns), rng, scale=scale, low=2, high=half)
    requests = [
        ScheduledRequest(
            request_id=f"{name}-{i}",
            offset_ns=offset,
            prompt=random_prompt(prompt, rng),
            prompt_tokens=prompt,
            max_tokens=min(output, max_model_tokens - prompt),
            ignore_eos=True,
            slo_class=slo_class,
        )
        for i, (offset, prompt, output) in enumerate(zip(offsets_ns, prompts, outputs, strict=True))
    ]
    return Workload.ordered(name, requests)
