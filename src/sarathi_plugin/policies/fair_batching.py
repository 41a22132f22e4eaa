"""``fair-batching``: batches formed by slack within a time budget (FairBatching, arXiv 2510.14392).

From the paper: token deadlines on the line arrival + TTFT target + j x TPOT target; a step may take the larger of the
least slack of all decodes and the least TPOT target; it is filled with urgent decodes (slack below that time plus a
TPOT target), then prompts by slack, then the other decodes by slack. So a decode ahead of its schedule gives way.

Guessed, since public descriptions leave it open: urgent decodes run even where they alone take longer; without decodes
a step is as large as the engine allows (8,192 tokens); prompts that memory cannot take hold nobody back; the last
prompt is cut to what fits. Left out: the admission budget offered to a cluster's router. Different here: deadlines
are those of the plugin, whose schedule restarts after a miss (the paper's line does not); times come from the step-time
model, with its margin, instead of a line fitted beforehand (without the margin every other step of a busy machine ends
just after its deadline, and a schedule that restarts counts each as a miss); each decode has the mean context.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import Chunk, StepPlan, StepShape
from sarathi_plugin.policies.base import Policy, blocks_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.core import IntArray, RequestRow, StepView


NOBODY: tuple[int, ...] = ()


@dataclass(frozen=True)
class FairBatching(Policy):
    """Urgent decodes, prompts, other decodes, each by slack, as long as the step's time lasts."""

    coasts = True

    def max_batched_tokens(self, max_model_len: int) -> int | None:
        """8192: room for every chunk that slack allows."""
        del max_model_len
        return 8192

    def plan(self, view: StepView) -> StepPlan:
        """The time of the step, then the three groups in turn."""
        if not view.has_prefill_work:
            return StepPlan(limit="no prompts")
        prefills, waiting = _by_slack(view.prefills), _by_slack(view.waiting)
        admitted = _that_fit(view, waiting)
        overtakes = bool(prefills and admitted) and _due(admitted[0]) < _due(prefills[0])
        served = admitted if overtakes else [*prefills, *admitted]
        chunk, skipped, time_ns = view.max_tokens - view.decode_tokens, NOBODY, None
        if view.decodes:
            chunk, skipped, time_ns = _fill(view, served)
        overtakes &= chunk > 0
        why = ["a prompt due sooner waits"] * overtakes + ["ahead of schedule"] * bool(skipped)
        return StepPlan(
            budget=max(1, _decode_tokens(view, view.decodes - len(skipped)) + chunk),
            limit="slack" if view.decodes else "engine",
            prefills=prefills,
            waiting=waiting,
            skip_prefills=overtakes,
            skip_some=skipped,
            reason=", ".join(why),
            available_ns=time_ns,
        )


def _due(row: RequestRow) -> int:
    return row.prefill_deadline_ns


def _by_slack(rows: Sequence[RequestRow]) -> list[RequestRow]:
    return sorted(rows, key=_due)


def _that_fit(view: StepView, waiting: Sequence[RequestRow]) -> list[RequestRow]:
    """The prompts that can be admitted now, one after the other: a place in the batch and memory for all of each."""
    found = []
    blocks, places = view.free_blocks, view.max_requests - view.running
    for row in waiting[: max(0, places)] if not view.previous_empty else ():
        blocks -= blocks_for(row.total_tokens, view.block_size)
        if blocks < 0:
            break
        found.append(row)
    return found


def _decode_tokens(view: StepView, decodes: int) -> int:
    """Tokens of so many of the decodes."""
    return -(-view.decode_tokens * decodes // view.decodes) if view.decodes else 0


def _predict_ns(view: StepView, decodes: int, rows: Sequence[RequestRow], tokens: int) -> int:
    """Time of a step with so many decodes, and so many prompt tokens taken from the rows in their order."""
    context = view.decode_context * decodes // view.decodes
    shape = StepShape(decodes, _decode_tokens(view, decodes), context)
    for row in rows:
        part = min(tokens, row.remaining_tokens)
        if not part:
            break
        shape = shape.with_chunk(Chunk(part, row.computed_tokens))
        tokens -= part
    return round(view.model.predict_ns(shape) * (1 + view.model.margin))


def _fill(view: StepView, rows: Sequence[RequestRow]) -> tuple[int, tuple[int, ...], int]:
    """(prompt tokens, places of the decodes left out, time the step may take)."""
    slack: IntArray = view.decode_deadline_ns - view.free_at_ns
    time_ns = max(int(slack.min()), view.min_decode_tbt_ns)
    order = np.argsort(slack, kind="stable")
    spare = order[slack[order] >= time_ns + view.min_decode_tbt_ns].tolist()
    urgent = view.decodes - len(spare)
    room = view.max_tokens - _decode_tokens(view, urgent)
    most = max(0, min(room, sum(row.remaining_tokens for row in rows)))
    chunk = bisect_right(range(1, most + 1), time_ns, key=lambda n: _predict_ns(view, urgent, rows, n))
    if not chunk or view.previous_empty:  # nothing to give way to
        return chunk, NOBODY, time_ns
    kept = bisect_right(
        range(1, len(spare) + 1), time_ns, key=lambda n: _predict_ns(view, urgent + n, rows, chunk)
    )
    return chunk, tuple(spare[kept:]), time_ns
