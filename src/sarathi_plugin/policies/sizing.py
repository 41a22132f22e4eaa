"""How many prompt tokens a step carries: candidates, how long each takes, whom it makes late. Pure functions."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sarathi_plugin.core import StepShape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sarathi_plugin.core import IntArray, RequestRow, StepTimeModel, StepView

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

DEARER = 1.1
"""A chunk is dear when a larger one takes so many times less on top of the decodes, per prompt token."""

LEAST_GAIN = 0.1
"""Share of D_d by which a step of the decodes alone has to be shorter than it, for waiting to be worth anything."""

FARTHEST = 2
"""No step carries more than so many times the prompt tokens of any that the model has learned from. Fitted to a few
small steps, one of them slow because it was the first, its line says nothing of large ones."""

FAR_NS = 1 << 62


class Sizes(NamedTuple):
    """Chunks a step may carry, ascending, and how long the step would take, margin included."""

    tokens: list[int]
    times_ns: list[float]


def judged(model: StepTimeModel, room: int, least: int) -> int:
    """Prompt tokens up to which a step can be judged, of ``room``: ``least`` until the model is ready."""
    if not model.ready:
        return min(room, least)
    seen: int | None = getattr(model, "seen_tokens", None)
    return room if seen is None else min(room, max(least, FARTHEST * seen))


def candidates(
    decode_tokens: int, room: int, rows: Sequence[RequestRow], tiles: Sequence[int] = TILES
) -> list[int]:
    """Chunk sizes on top of the decodes, ascending: on tile edges, at the ends of the first prompts, all there is.

    rows: prompts in the order in which they would be served, at least one; room: most prompt tokens, at least one;
    tiles: ascending.
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
    edges = tiles[bisect_right(tiles, decode_tokens) : bisect_right(tiles, decode_tokens + most)]
    return sorted({most, *[end for end in ends if end <= most], *[total - decode_tokens for total in edges]})


def attention_of(rows: Sequence[RequestRow], tokens: Iterable[int]) -> list[float]:
    """Query-key pairs of each number of prompt tokens: ascending, no more than there are, in the order of the rows."""
    found: list[float] = []
    at = taken = 0  # a step carries the rows before this one, whole: so many tokens and so many pairs of them
    pairs = 0.0
    left, context = rows[0].remaining_tokens, rows[0].computed_tokens
    for count in tokens:
        while left < count - taken:
            pairs += left * (context + left / 2)
            taken += left
            at += 1
            left, context = rows[at].remaining_tokens, rows[at].computed_tokens
        part = count - taken
        found.append(pairs + part * (context + part / 2))
    return found


def predicted(
    model: StepTimeModel, shape: StepShape, tokens: Sequence[int], pairs: Sequence[float]
) -> list[int]:
    """Nanoseconds the decodes' step takes with each of so many prompt tokens; in one call where the model can."""
    many: Callable[..., list[int]] | None = getattr(model, "predict_many_ns", None)
    if many:
        return many(shape, tokens, pairs)
    return [model.predict_ns(StepShape(*shape[:3], *size)) for size in zip(tokens, pairs, strict=True)]


def sizes_within(
    model: StepTimeModel, shape: StepShape, rows: Sequence[RequestRow], tokens: list[int], limit_ns: float
) -> Sizes:
    """The candidates up to the first whose step exceeds the limit, and the smallest in any case."""
    slower = 1 + model.margin
    times: list[float] = []
    for took in predicted(model, shape, tokens, attention_of(rows, tokens)):
        if took * slower > limit_ns and times:
            break
        times.append(took * slower)
    return Sizes(tokens[: len(times)], times)


def one_decode_ns(view: StepView, alone_ns: float) -> int:
    """What a step with a single decode takes: a smaller D_d cannot be met, whatever is scheduled.

    alone_ns: time of a step that carries the decodes alone. While that keeps to every D_d nobody asks: 0.
    """
    if view.decodes and alone_ns <= view.min_decode_tbt_ns:
        return 0
    return view.model.predict_ns(StepShape(1, 1, view.decode_context // max(1, view.decodes)))


def with_a_say(view: StepView, alone_ns: float) -> tuple[IntArray, IntArray]:
    """(slack, D_d) of the decodes that can be on time, now or later.

    One that is late, and whose D_d not even a decode by itself meets, misses as many deadlines as time goes by, however
    it is cut into steps. Small chunks do not help it, and they take longest.
    """
    slack, period = view.decode_deadline_ns - view.free_at_ns, view.decode_tbt_ns
    least_ns = one_decode_ns(view, alone_ns)
    if view.min_decode_tbt_ns > least_ns:
        return slack, period
    able = (slack >= alone_ns) | (period > least_ns)
    return slack[able], period[able]


def harmless_ns(view: StepView, alone_ns: float) -> int:
    """The longest step that makes no decode miss a deadline which it meets when the decodes go alone."""
    slack, period = with_a_say(view, alone_ns)
    least = int(slack.min(initial=FAR_NS))
    if least >= alone_ns:
        return least
    late_alone = slack < alone_ns
    least = int(slack.min(where=~late_alone, initial=FAR_NS))
    slack, period = slack[late_alone], period[late_alone]
    following = int((slack + period * (((alone_ns - slack) // period) + 1)).min())
    # One that is late anyway misses its next deadline as soon as it is reached.
    return min(least, following - 1)


def added_misses(view: StepView, alone_ns: float, times_ns: Sequence[float]) -> list[int]:
    """Deadlines that all decodes together miss in a step of each length, beyond what the decodes alone would miss."""
    slack, period = with_a_say(view, alone_ns)
    near = slack < max(times_ns)
    late = np.array([alone_ns, *times_ns])[:, None] - slack[near]
    missed = ((np.floor(late / period[near]) + 1) * (late > 0)).sum(axis=1)
    found: list[int] = np.maximum(missed[1:] - missed[0], 0).astype(np.int64).tolist()
    return found


def fastest(sizes: Sizes, longest_ns: float) -> int | None:
    """Index of the chunk that takes least time per prompt token among the steps up to a length, None without any.

    The larger of equals: the fastest way through the backlog that costs nobody anything.
    """
    best, least = None, math.inf
    for i, (count, took) in enumerate(zip(sizes.tokens, sizes.times_ns, strict=True)):
        if took <= longest_ns and took / count <= least:
            best, least = i, took / count
    return best


def least_harm(sizes: Sizes, added: Sequence[int]) -> int:
    """Index of the chunk that makes decodes miss least per prompt token, the smaller of equals."""
    prices = [(late / count, i) for i, (count, late) in enumerate(zip(sizes.tokens, added, strict=True))]
    return min(prices)[1]


def worth_saving(sizes: Sizes, best: int | None, alone_ns: int, period_ns: float, slower: float) -> bool:
    """Whether the decodes should go alone for now, to build up slack for a chunk that costs less.

    A decode takes the same time beside a chunk, so a chunk costs what its step takes beyond the decodes. Where slack is
    what is short, a step of decodes alone earns it and every other spends it, so in the long run most prompt tokens get
    through where each costs least. Steps at the very edge of the deadlines also miss them at every surprise, so a chunk
    bears the margin of its whole step.

    best: index of the chunk that would run, None when each makes somebody late. alone_ns, slower: time of the decodes
    alone, and what to multiply it by for its margin. period_ns: D_d of the tightest decode.
    """
    if period_ns - alone_ns * slower < LEAST_GAIN * period_ns:
        return False
    if best is None:
        return True
    costs = [
        (took - alone_ns) / count
        for count, took in zip(sizes.tokens[best:], sizes.times_ns[best:], strict=True)
    ]
    return costs[0] > DEARER * min(costs)
