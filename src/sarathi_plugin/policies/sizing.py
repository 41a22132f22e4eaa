"""How many prompt tokens a step carries: candidates, what each would cost, the cheapest per token. Pure functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sarathi_plugin.core import Chunk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.core import RequestRow, StepShape, StepTimeModel, StepView

TILES = (*range(64, 512, 64), *range(512, 1024, 128), *range(1024, 2048, 256), *range(2048, 16385, 1024))
"""Totals of a step worth considering. A matrix product works in tiles: a few tokens over the edge cost as much as
a full one (256 to 264 tokens: +36 % on an A100), so steps end on edges."""

ENDS = 4
"""Chunks that just finish the first so many prompts are candidates too."""

MISS = 1.0
"""What a deadline that the step makes a decode miss costs, in requests: so much that no prompt is worth one."""


class Sizes(NamedTuple):
    """Chunks a step may carry, ascending, and how long the step would take, margin included."""

    tokens: list[int]
    times_ns: list[float]


def candidates(
    decode_tokens: int, room: int, rows: Sequence[RequestRow], tiles: Sequence[int] = TILES
) -> list[int]:
    """Chunk sizes on top of the decodes, ascending: on tile edges, at the ends of the first prompts, all there is.

    rows: prompts in the order in which they would be served, at least one; room: most prompt tokens, at least one.
    """
    backlog = 0
    ends: list[int] = []
    for row in rows:
        backlog += row.remaining_tokens
        if len(ends) < ENDS:
            ends.append(backlog)
        if backlog >= room:
            break
    most = min(room, backlog)
    found = {total - decode_tokens for total in tiles} | {*ends, most}
    return sorted(size for size in found if 0 < size <= most)


def with_prompts(shape: StepShape, rows: Sequence[RequestRow], tokens: int) -> StepShape:
    """The step with so many prompt tokens, taken from the rows in their order."""
    for row in rows:
        part = min(tokens, row.remaining_tokens)
        shape = shape.with_chunk(Chunk(part, row.computed_tokens))
        tokens -= part
        if not tokens:
            break
    return shape


def sizes_within(
    model: StepTimeModel, shape: StepShape, rows: Sequence[RequestRow], tokens: list[int], limit_ns: float
) -> Sizes:
    """The candidates whose step stays within the limit, and the smallest in any case."""
    slower = 1 + model.margin
    times: list[float] = []
    for count in tokens:
        took = model.predict_ns(with_prompts(shape, rows, count)) * slower
        if took > limit_ns and times:
            break
        times.append(took)
    return Sizes(tokens[: len(times)], times)


def added_misses(view: StepView, alone_ns: float, times_ns: Sequence[float]) -> list[int]:
    """Deadlines that all decodes together miss in a step of each length, beyond what the decodes alone would miss."""
    slack = view.decode_deadline_ns - view.free_at_ns
    near = slack < times_ns[-1]
    if not near.any():
        return [0] * len(times_ns)
    late = np.array([alone_ns, *times_ns])[:, None] - slack[near]
    missed = np.where(late > 0, late // view.decode_tbt_ns[near] + 1, 0).sum(axis=1)
    found: list[int] = np.maximum(missed[1:] - missed[0], 0).astype(np.int64).tolist()
    return found


def cheapest(sizes: Sizes, harm: Sequence[float], loss_per_ns: float) -> int:
    """Index of the chunk that costs least per prompt token, the larger of equals.

    A step of time T with c prompt tokens costs the queue loss_per_ns x T and the decodes ``harm``: each token of
    backlog pays (loss_per_ns T + harm) / c. Without harm that is the fastest way through the backlog.
    """
    best, found = math.inf, 0
    for i, (count, took, cost) in enumerate(zip(sizes.tokens, sizes.times_ns, harm, strict=True)):
        price = (loss_per_ns * took + cost) / count
        if price <= best:
            best, found = price, i
    return found
