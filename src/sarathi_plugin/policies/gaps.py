"""Gap mode, where first tokens are all there is to win: who goes first, and how large a step is. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.policies.sizing import attention_of, predicted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.core import Prompts, RequestRow, StepView
    from sarathi_plugin.policies.sizing import Sizes
    from sarathi_plugin.tolerance import FloatArray

SCARCE = 0.2
"""KV memory is short when less than this share of it is free."""

SHORT_STEP = 4
"""A step then takes at most so many times what its decodes alone would take."""

ROUNDING = 1e-3
"""Totals that differ by less are equal: no prediction is that exact."""


def bounded_ranks(
    prompts: Prompts, work_ns: FloatArray, now_ns: int, usual_ns: int, enough: int, most: int
) -> FloatArray:
    """Places in a queue where shorter prompts overtake older ones as far as these can bear it; shape (n,).

    In arrival order the i-th prompt would have its first token f_i after its arrival. It may be overtaken as long as it
    has it within max(f_i, ``usual_ns``); of those that may go next the shortest does (Smith 1956: it holds up the
    others least). So with work as predicted nobody's first token comes later than the larger of ``usual_ns`` and what
    first come, first served would have given: overtaking by a younger one adds to f_i no more than i can bear, order
    among the older ones does not change f_i, and neither does who arrives later. A tail beyond ``usual_ns`` is that
    of arrival order.

    work_ns: shape (n,). The first ``most`` prompts, or those with ``enough`` tokens together, are put in this
    order, the others by arrival.
    """
    by_arrival = np.argsort(prompts.arrival_ns, kind="stable")
    work = work_ns[by_arrival]
    first_ns = now_ns - prompts.arrival_ns[by_arrival] + np.cumsum(work)
    spare = np.maximum(usual_ns - first_ns, 0.0)  # infinite, as is the work, of those that have their place
    bearable = np.full(len(work), np.inf)
    found: list[int] = []
    tokens = 0
    while np.count_nonzero(spare) > len(found) and len(found) < most and tokens < enough:
        np.minimum.accumulate(spare[:-1], out=bearable[1:])
        at = int(np.argmin(np.where(work <= bearable, work, np.inf)))  # the oldest holds up nobody older
        spare[:at] -= work[at]
        found.append(at)
        tokens += int(prompts.left_tokens[by_arrival[at]])
        spare[at] = work[at] = np.inf
    ranks = np.empty(len(work_ns))
    ranks[by_arrival[found]] = np.arange(len(found))
    ranks[np.delete(by_arrival, found)] = np.arange(len(found), len(ranks))
    return ranks


def longest_wait(prompts: Prompts, work_ns: FloatArray, now_ns: int) -> float:
    """Nanoseconds from arrival to first token of the prompt that waits longest, all in order of arrival.

    work_ns: shape (n,), at least one.
    """
    by_arrival = np.argsort(prompts.arrival_ns, kind="stable")
    return float((now_ns - prompts.arrival_ns[by_arrival] + np.cumsum(work_ns[by_arrival])).max())


def short_step_ns(view: StepView, alone_ns: int) -> float:
    """Longest step for the sake of KV memory. alone_ns: time of a step that carries the decodes alone.

    A chunk takes its memory at once; decodes that end free some, and beside small chunks they end sooner.
    """
    return SHORT_STEP * alone_ns if view.free_blocks < SCARCE * view.total_blocks else np.inf


def least_wait(view: StepView, rows: Sequence[RequestRow], sizes: Sizes, alone_ns: int, others: int) -> int:
    """Index of the chunk after which first tokens come soonest, summed over all prompts; the larger of equals.

    A prompt that ends within the chunk has its first token when the step ends. One beyond it waits for the step, then
    for what is left before it and of it: its tokens and attention, and one more pass over the decodes for every further
    step of the usual size, the one with the least time per token. Attention counts alike whoever carries it: time per
    token of a chunk would favour the small, whose tokens look back on less.

    rows: prompts in the order in which they are served. alone_ns: time of a step that carries the decodes alone.
    others: prompts that wait behind all of these.
    """
    model, shape = view.model, view.decode_shape
    counts = np.array(sizes.tokens)
    took = np.array(sizes.times_ns) / (1 + model.margin)
    flat = np.array(predicted(model, shape, sizes.tokens, [0.0] * len(sizes.tokens)))
    usual = int(np.argmin(flat / counts))
    token_ns = (flat[usual] - alone_ns) / counts[usual]
    ends = np.cumsum([row.remaining_tokens for row in rows])
    done = np.array(attention_of(rows, sizes.tokens))
    pair_ns = (took[-1] - flat[-1]) / done[-1]
    rest = ends - counts[:, None]
    pairs = np.array(attention_of(rows, ends.tolist())) - done[:, None]
    more = np.ceil(rest / counts[usual]) * alone_ns + rest * token_ns + pairs * pair_ns
    waits = took[:, None] + np.where(rest > 0, more, 0.0)
    total = waits.sum(axis=1) + others * waits[:, -1]
    return int(np.flatnonzero(total <= total.min() * (1 + ROUNDING))[-1])
