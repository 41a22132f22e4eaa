"""``sarathi``: stall-free chunked prefill whose budget follows the deadlines of the tokens in flight.

From Sarathi-Serve (arXiv 2403.02310): decodes always run, prompts fill the rest in chunks. Instead of a fixed one,
the budget of each step is the largest chunk that, by the step-time model, still lets the tightest decode meet its
deadline (the idea of Niyama/QoServe and FairBatching, arXiv 2510.14392), steps in flight counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sarathi_plugin.core import StepPlan
from sarathi_plugin.policies.base import Policy, blocks_for
from sarathi_plugin.policies.sizing import available_time_ns, efficient_chunk, largest_chunk, needed_time_ns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sarathi_plugin.core import RequestRow, StepView

BANKING = 0.8
"""A decode step shorter than this share of D_d banks slack, so a prompt may wait a step for a chunk worth its price."""


PATIENCE = 4
"""A prompt that is late by this many times its own allowance goes before all others: nobody starves."""


def urgency(row: RequestRow, now_ns: int) -> tuple[int, int]:
    """Sort key of a prompt, smallest first.

    Those that can still be on time by earliest deadline (EDF). After them the late ones, shortest first: each of them
    misses one more deadline per D_d whoever goes first, so finishing the short ones first loses least.
    """
    late_ns = now_ns - row.prefill_deadline_ns
    if late_ns <= 0:
        return 1, row.prefill_deadline_ns
    if late_ns > PATIENCE * (row.prefill_deadline_ns - row.arrival_ns):
        return 0, row.arrival_ns
    return 2, row.remaining_tokens


def by_urgency(rows: Iterable[RequestRow], now_ns: int) -> list[RequestRow]:
    """Prompts, the most urgent first."""
    return sorted(rows, key=lambda row: urgency(row, now_ns))


@dataclass(frozen=True)
class Sarathi(Policy):
    """Nothing to tune; the fields are there for experiments.

    slo: what a deadline means. token_budget: cap on a step's tokens, None for the engine's. stall_cap: no step takes
    longer than this many D_d, whatever slack is banked. idle_cap: the same while nobody decodes. cold_chunk: prompt
    tokens a step until the step-time model is ready. efficiency: share of a mixed step that prompt work should at
    least have. max_partial: prompts under way at once (each holds KV memory).
    """

    coasts = True
    slo: Literal["deadline", "gap"] = "deadline"
    token_budget: Annotated[int, Field(gt=0)] | None = None
    stall_cap: Annotated[float, Field(ge=1)] = 4.0
    idle_cap: Annotated[float, Field(ge=1)] = 8.0
    cold_chunk: Annotated[int, Field(gt=0)] = 128
    efficiency: Annotated[float, Field(ge=0, lt=1)] = 0.25
    max_partial: Annotated[int, Field(gt=0)] = 4

    def max_batched_tokens(self, max_model_len: int) -> int | None:
        """8192: room for every chunk that slack allows."""
        del max_model_len
        return self.token_budget or 8192

    def plan(self, view: StepView) -> StepPlan:
        """Size the step, order the prompts."""
        if not view.has_prefill_work:
            return StepPlan(limit="no prompts")
        now = view.now_ns
        prefills = by_urgency(view.prefills, now)
        waiting = by_urgency(view.waiting, now) if view.waiting_count else []
        overtakes = bool(waiting) and self._overtakes(waiting[0], prefills, view)
        chunk, limit, available = self._chunk(view, waiting[:1] if overtakes else prefills)
        crowded = len(prefills) >= self.max_partial and not (
            overtakes and waiting[0].remaining_tokens <= chunk
        )
        skip = overtakes and not crowded and chunk > 0
        return StepPlan(
            budget=view.decode_tokens + chunk,
            limit=limit,
            prefills=prefills,
            waiting=waiting if chunk and len(waiting) > 1 else None,
            # The engine gives budget to prompts under way first; without them it reaches the waiting one.
            skip_prefills=skip,
            reason="a more urgent prompt waits" if skip else "",
            max_running=view.running if crowded else None,
            available_ns=available,
            relegated=sum(view.previous_ns < row.prefill_deadline_ns < now for row in [*prefills, *waiting]),
        )

    @staticmethod
    def _overtakes(first: RequestRow, prefills: list[RequestRow], view: StepView) -> bool:
        """Whether the most urgent waiting prompt should go before those under way, and can be admitted."""
        if not prefills or view.previous_empty or view.running >= view.max_requests:
            return False
        if urgency(first, view.now_ns) >= urgency(prefills[0], view.now_ns):
            return False
        return blocks_for(first.total_tokens, view.block_size) <= view.free_blocks

    def _chunk(self, view: StepView, prefills: list[RequestRow]) -> tuple[int, str, int | None]:
        """(prompt tokens, what bound them, time available) of this step."""
        room = min(view.max_tokens, self.token_budget or view.max_tokens) - view.decode_tokens
        if room <= 0:
            return 0, "decodes", None
        if not view.model.ready:
            return min(room, self.cold_chunk), "cold model", None
        context = prefills[0].computed_tokens if prefills else 0
        shape = view.decode_shape
        if view.decodes:
            available = available_time_ns(view, self.slo, self.stall_cap)
        else:
            rows = prefills or view.waiting
            tbt_ns = min((row.slo.tbt_ns for row in rows), default=0)
            available = round(self.idle_cap * tbt_ns)
        time_ns = round(available / (1 + view.model.margin))
        chunk = largest_chunk(view.model, shape, context, room, time_ns)
        if chunk == room:
            return chunk, "engine", available
        if chunk and time_ns >= needed_time_ns(view.model, shape, self.efficiency):
            return chunk, "slack", available
        floor = efficient_chunk(view.model, shape, context, room, self.efficiency)
        banks = view.model.predict_ns(shape) < BANKING * view.min_decode_tbt_ns
        if view.decodes and banks and self.slo == "deadline" and not view.previous_empty:
            return 0, "banking", available
        return floor, "floor", available
