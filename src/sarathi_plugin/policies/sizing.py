"""How many prompt tokens a step carries: candidates, how long each takes, whom it makes late. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sarathi_plugin.core import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sarathi_plugin.core import RequestRow, StepShape, StepTimeModel, StepView

TILES = (
    16,
    32,
    48,
    *range(64, 512, 64),
    *range(512, 1024, 128),
    *range(1024, 2048, 256),
    *range(2048, 16385, 1024),
)
"""Totals of a step worth considering. A matrix product works in tiles: a few tokens over the edge cost as much as
a full one (256 to 264 tokens: +36 % on an A100), so steps end on edges. The smallest count where a token takes
milliseconds, as on CPUs."""

ENDS = 4
"""Chunks that just finish the first so many prompts are candidates too."""


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


def with_prompts(shape: StepShape, rows: Sequence[RequestRow], tokens: Iterable[int]) -> Iterator[StepShape]:
    """The step with each of so many prompt tokens (ascending, no more than there are), taken from the rows in order."""
    at = taken = 0  # the step carries the rows before this one, whole, and so many tokens of them
    for count in tokens:
        while (left := rows[at].remaining_tokens) < count - taken:
            shape = shape.with_chunk(Chunk(left, rows[at].computed_tokens))
            taken += left
            at += 1
        yield shape.with_chunk(Chunk(count - taken, rows[at].computed_tokens))


def sizes_within(
    model: StepTimeModel, shape: StepShape, rows: Sequence[RequestRow], tokens: list[int], limit_ns: float
) -> Sizes:
    """The candidates whose step stays within the limit, and the smallest in any case."""
    slower = 1 + model.margin
    times: list[float] = []
    for step in with_prompts(shape, rows, tokens):
        took = model.predict_ns(step) * slower
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
    missed = ((np.floor(late / view.decode_tbt_ns[near]) + 1) * (late > 0)).sum(axis=1)
    found: list[int] = np.maximum(missed[1:] - missed[0], 0).astype(np.int64).tolist()
    return found


def fastest(sizes: Sizes, added: Sequence[int]) -> int | None:
    """Index of the chunk that takes least time per prompt token among those that make no decode late, None without any.

    The larger of equals: the fastest way through the backlog that costs nobody anything.
    """
    rates = [
        (took / count, -count, i)
        for i, (count, took, late) in enumerate(zip(sizes.tokens, sizes.times_ns, added, strict=True))
        if not late
    ]
    return min(rates)[2] if rates else None


def least_harm(sizes: Sizes, added: Sequence[int]) -> int:
    """Index of the chunk that makes decodes miss least per prompt token, the smaller of equals."""
    prices = [(late / count, i) for i, (count, late) in enumerate(zip(sizes.tokens, added, strict=True))]
    return min(prices)[1]
