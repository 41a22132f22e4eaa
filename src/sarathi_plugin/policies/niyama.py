"""``niyama``: deadline slack, hybrid priority and relegation, as published (arXiv 2503.22562; QoServe, ASPLOS 2026).

Equations and constants are those of the paper and its artifact. What the artifact gets wrong is not copied:
throughput for relegation comes from the step-time model instead of an average over mixed steps, and relegated
prompts are looked at anew in every step. The step-time model is ours, and so are the deadlines: the artifact's are one
target period later and never restart. A completion deadline of a class does not count here. A waiting prompt that
overtakes those under way has the step to itself and others that wait; in the artifact whoever comes next gets the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from sarathi_plugin.core import NS_PER_S, Chunk, StepPlan
from sarathi_plugin.policies.base import Policy, blocks_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sarathi_plugin.core import RequestRow, StepView

TOTALS = (128, *range(256, 2049, 256), 2552)
"""Tokens a step may carry."""

GUARD = 1.2
"""Predictions are multiplied by it."""

SCARCE_TOKENS, SCARCE_TOTAL = 32_000, 512
"""With less free KV memory than the first, steps carry no more than the second."""

TYPICAL = 512


@dataclass(frozen=True)
class Niyama(Policy):
    """Hybrid of earliest deadline and shortest remaining prompt; chunks from slack; eager relegation.

    alpha: seconds of deadline that a remaining prompt token counts for (0: earliest deadline first).
    """

    coasts = True
    alpha: Annotated[float, Field(ge=0)] = 0.008

    def max_batched_tokens(self, max_model_len: int) -> int | None:
        """The largest total, and room for the decodes beside it."""
        del max_model_len
        return 4096

    def plan(self, view: StepView) -> StepPlan:
        """Section 3 of the paper: order by priority, relegate, fill the slack."""
        if not view.has_prefill_work:
            return StepPlan(limit="no prompts")
        token_ns = view.model.predict_ns(view.decode_shape.with_chunk(Chunk(TYPICAL, 0))) / TYPICAL
        waiting = list(view.waiting)
        relegated = {
            row.request_id
            for row in waiting  # those under way hold memory: they are finished
            if view.now_ns + row.remaining_tokens * token_ns > row.prefill_deadline_ns
        }
        prefills = self._ranked(view.prefills, frozenset())
        waiting = self._ranked(waiting, relegated)
        skip = bool(prefills and waiting) and self._overtakes(waiting[0], prefills[0], relegated, view)
        chunk, limit, slack = self._chunk(view, waiting if skip else prefills or waiting)
        return StepPlan(
            budget=view.decode_tokens + chunk,
            limit=limit,
            prefills=prefills,
            waiting=waiting,
            skip_prefills=skip and chunk > 0,
            reason="a more urgent prompt waits" if skip and chunk else "",
            available_ns=None if slack is None else max(0, slack),
            relegated=sum(view.previous_ns < row.prefill_deadline_ns <= view.now_ns for row in waiting),
        )

    def _key(self, row: RequestRow) -> float:
        return row.prefill_deadline_ns + self.alpha * NS_PER_S * row.remaining_tokens

    def _ranked(self, rows: Iterable[RequestRow], relegated: Iterable[str]) -> list[RequestRow]:
        return sorted(rows, key=lambda row: (row.request_id in relegated, self._key(row)))

    def _overtakes(self, first: RequestRow, held: RequestRow, relegated: set[str], view: StepView) -> bool:
        if first.request_id in relegated or view.previous_empty or view.running >= view.max_requests:
            return False
        fits = blocks_for(first.total_tokens, view.block_size) <= view.free_blocks
        return fits and self._key(first) < self._key(held)

    @staticmethod
    def _chunk(view: StepView, rows: list[RequestRow]) -> tuple[int, str, int | None]:
        """(prompt tokens, what bound them, slack): the largest total whose guarded prediction fits the least slack."""
        context = rows[0].computed_tokens if rows else 0
        scarce = view.free_blocks * view.block_size < SCARCE_TOKENS
        totals = [t for t in TOTALS if not scarce or t <= SCARCE_TOTAL]
        if not view.decodes:
            return totals[-1], "no decodes", None
        slack = int(view.decode_deadline_ns.min()) - view.free_at_ns
        best = totals[0]
        for total in totals:
            chunk = max(0, total - view.decode_tokens)
            if view.model.predict_ns(view.decode_shape.with_chunk(Chunk(chunk, context))) * GUARD <= slack:
                best = total
        return max(0, best - view.decode_tokens), "slack", slack
