"""Workloads of random token ids: no two prompts share a prefix, lengths are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.workload.lengths import SHAREGPT, LengthPair
from sarathi_plugin.workload.model import ScheduledRequest, Workload
from sarathi_plugin.workload.trace import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.workload.trace import Trace

FIRST_ID, LAST_ID = 10, 250
"""Token ids that are plain tokens in every tokenizer met so far, byte-level ones included."""

GRID_ID = "grid-"
"""How the ids of requests begin that are sent to meet shapes of batches, not as traffic would come."""

_OWN = 1 << 40
"""Contents from here on belong to requests that share nothing: beyond any a trace would name."""


def own_content(number: int, tokens: int) -> tuple[Segment, ...]:
    """The content of the ``number``-th request of a trace when it shares nothing with any other."""
    return (Segment(_OWN + number, tokens),)


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


def workload_of(trace: Trace, seed: int) -> Workload:
    """A trace as prompts of token ids, exact in length; prompts share a prefix just as far as their segments do.

    Answers have exactly the trace's length. Under one seed the same content always has the same tokens.
    """
    requests = []
    for number, asked in enumerate(trace.requests):
        segments = asked.segments or own_content(number, asked.prompt_tokens)
        prompt: list[int] = []
        for content, tokens in segments:
            # Content ids may be negative; seeds may not.
            rng = np.random.default_rng([seed, content % 2**63])
            prompt += random_prompt(tokens, rng)
        requests.append(
            ScheduledRequest(
                request_id=asked.request_id,
                offset_ns=asked.offset_ns,
                prompt=tuple(prompt),
                prompt_tokens=asked.prompt_tokens,
                max_tokens=asked.output_tokens,
                ignore_eos=True,
                slo_class=asked.slo_class,
                kind=asked.kind,
            )
        )
    return Workload(trace.name, tuple(requests))
