"""``sarathi``: stall-free chunked prefill that keeps as many requests fluid as it can.

From Sarathi-Serve (arXiv 2403.02310): decodes always run, prompts fill the rest of a step in chunks. Which prompt goes
first and how large the chunk is follow from one question: what does it cost, in requests that will not be fluid?
See docs/policies.md.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from sarathi_plugin.core import StepPlan
from sarathi_plugin.policies.base import Policy, blocks_for
from sarathi_plugin.policies.gaps import bounded_ranks, least_wait, longest_wait, short_step_ns
from sarathi_plugin.policies.sizing import (
    TILES,
    added_misses,
    candidates,
    fastest,
    harmless_ns,
    judged,
    least_harm,
    one_decode_ns,
    sizes_within,
    worth_saving,
)
from sarathi_plugin.policies.urgency import claims_memory, loss_if_delayed, most_overdue, newly_late, work_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.core import IntArray, Prompts, RequestRow, StepView
    from sarathi_plugin.policies.sizing import Sizes
    from sarathi_plugin.tolerance import FloatArray

FRONT = 64
"""So many waiting prompts, the most urgent ones, are put in order."""

SERVED_EVERY = 16
"""One of so many steps saves nothing: prompts get on whatever the step-time model foresees."""

LATE_POWER = 4
"""A wait longer than half of all may use 1/16 of the late gaps there are to give away, than nine of ten two thirds."""

FIRST = float(1 << 62)
"""What puts a key before all others."""


@dataclass(frozen=True)
class Sarathi(Policy):
    """Nothing to tune; the fields are there for experiments.

    slo: what a deadline means. token_budget: cap on a step's tokens, None for the engine's. order: of the prompts; auto
    is ``bounded`` in gap mode, else ``loss``. least_wait: in gap mode, sizes by when first tokens come, not by time per
    token. late_share: in gap mode, most gaps that steps up to the stall cap may make late, four fifths of what a P99
    forgives: the more, the longer the longest wait.
    tiles: end steps on tile edges. saving: decodes go alone while slack builds up for a chunk that costs less, by
    deadlines only. look_ahead: mean further wait of a prompt, as a share of the work queued.
    stall_cap: no step takes longer than this many D_d, whatever slack is banked; idle_cap: while nobody decodes.
    cold_chunk: prompt tokens a step until the step-time model is ready, then larger ones as it learns of them.
    headroom: share of KV memory that admitting a prompt leaves free; None is 0.02, and 0 in gap mode, where a preempted
    decode costs one late gap. overtaking: a more urgent waiting prompt goes before those under way. ageing: every so
    many steps belong to the prompt furthest overdue; 0 for none, and then a prompt may starve; order ``bounded`` needs
    none. prefix_hits: what the prefix cache holds of a waiting prompt counts as computed.
    """

    coasts = True
    slo: Literal["deadline", "gap"] = "deadline"
    token_budget: Annotated[int, Field(gt=0)] | None = None
    order: Literal["auto", "loss", "bounded", "deadline", "shortest", "arrival"] = "auto"
    least_wait: bool = True
    late_share: Annotated[float, Field(ge=0, lt=1)] = 0.008
    tiles: bool = True
    saving: bool = True
    look_ahead: Annotated[float, Field(gt=0)] = 0.5
    stall_cap: Annotated[float, Field(ge=1)] = 4.0
    idle_cap: Annotated[float, Field(ge=1)] = 8.0
    cold_chunk: Annotated[int, Field(gt=0)] = 128
    headroom: Annotated[float, Field(ge=0, lt=1)] | None = None
    overtaking: bool = True
    ageing: Annotated[int, Field(ge=0)] = 16
    prefix_hits: bool = True

    def max_batched_tokens(self, max_model_len: int) -> int | None:
        """8192: room for every chunk that slack allows."""
        del max_model_len
        return self.token_budget or 8192

    def plan(self, view: StepView) -> StepPlan:
        """Rank the prompts, size the step."""
        if not view.has_prefill_work:
            return StepPlan(limit="no prompts")
        prompts = view.prompts
        if not len(prompts.slots):
            return StepPlan(limit="untracked")
        alone_ns = view.model.predict_ns(view.decode_shape)
        work_ns = work_of(view, prompts, alone_ns)
        key, most = self._rank(view, prompts, work_ns, alone_ns)
        held = key[: len(view.prefills)].tolist()
        prefills = [view.prefills[i] for i in sorted(range(len(held)), key=held.__getitem__)]
        front = self._front(prompts, key, len(held), view.max_tokens)
        waiting = [view.row(slot) for slot in prompts.slots.take(front).tolist()]
        if view.resting:
            able = sorted(range(len(waiting)), key=lambda i: waiting[i].request_id in view.resting)
            front, waiting = front.take(able), [waiting[i] for i in able]
        more_urgent = bool(held and waiting and key[front[0]] < min(held) and view.may_overtake(waiting[0]))
        gate = view.running if waiting and self._crowded(view, waiting[0]) else most
        admits = bool(waiting) and (gate is None or gate > view.running)
        # Whether it can start now: memory for it is there when anybody is admitted.
        starts = admits and not view.previous_empty and view.running < view.max_requests
        overtakes = self.overtaking and more_urgent and starts
        # Nobody sizes a step who is kept out of it: another prompt would run in it, and take longer.
        served = waiting if overtakes else [*prefills, *(waiting if admits else ())]
        gives = self.slo == "gap" and view.decodes
        late_share = self._late_share(view, prompts, work_ns) if gives else 0.0
        others = len(prompts.slots) - len(served)
        chunk, limit, available = self._chunk(view, served, alone_ns, others, late_share)
        skip = overtakes and chunk > 0
        return StepPlan(
            budget=view.decode_tokens + chunk,
            limit=limit,
            prefills=prefills,
            waiting=waiting if admits and chunk and view.waiting_count > 1 else None,
            # The engine gives budget to prompts under way first; without them it reaches the waiting one.
            skip_prefills=skip,
            reason="a more urgent prompt waits" if skip else "",
            max_running=gate,
            available_ns=available,
            relegated=newly_late(prompts, view.previous_ns, view.now_ns),
        )

    @property
    def _order(self) -> str:
        """The order that holds."""
        if self.order != "auto":
            return self.order
        return "bounded" if self.slo == "gap" else "loss"

    def _rank(
        self, view: StepView, prompts: Prompts, work_ns: FloatArray, alone_ns: int
    ) -> tuple[FloatArray, int | None]:
        """(by what prompts are ranked, the least first, shape (n,); most running, None for any).

        work_ns: time to its first token of each alone. alone_ns: time of a step that carries the decodes alone.
        """
        key = self._keys(view, prompts, work_ns, alone_ns)
        back = prompts.preempted.nonzero()[0]
        if len(back):
            # Nobody gets ahead of one that has lost its place before it is through, so it cannot lose it for ever.
            key[back] = prompts.arrival_ns[back] - FIRST
            returning = int(np.count_nonzero(back >= len(view.prefills)))
            return key, None if view.previous_empty else view.running + returning
        ages = self.ageing and self._order != "bounded"
        overdue = most_overdue(prompts, view.now_ns) if ages else None
        if overdue is None:
            return key, None
        if view.step % self.ageing == 0:
            key[overdue] = -np.inf
        claims = overdue >= len(view.prefills) and claims_memory(prompts, overdue, view.now_ns)
        short = claims and self._crowded(view, view.row(int(prompts.slots[overdue])))
        return key, view.running if short else None

    def _keys(self, view: StepView, prompts: Prompts, work_ns: FloatArray, alone_ns: int) -> FloatArray:
        """By what prompts are ranked by their order alone."""
        order = self._order
        if order in ("deadline", "arrival"):
            return (prompts.due_ns if order == "deadline" else prompts.arrival_ns).astype(np.float64)
        if order == "bounded":
            return bounded_ranks(prompts, work_ns, view.now_ns, view.waits.usual_ns, view.max_tokens, FRONT)
        if order == "shortest":
            return work_ns
        wait_ns = max(1.0, self.look_ahead * float(work_ns.sum()))
        loss = loss_if_delayed(prompts, work_ns, view.now_ns, wait_ns, view.tolerance)
        # A step has a price of its own: without it the shortest prompts would always come first.
        found: FloatArray = work_ns + max(1, alone_ns)
        found /= loss
        return found

    @staticmethod
    def _front(prompts: Prompts, key: FloatArray, held: int, max_tokens: int) -> IntArray:
        """Places of the most urgent waiting prompts, in order, enough to fill a step. held: how many do not wait."""
        waiting = key[held:]
        top = waiting.argpartition(FRONT - 1)[:FRONT] if len(waiting) > FRONT else np.arange(len(waiting))
        top = top.take(waiting.take(top).argsort(kind="stable")) + held
        tokens = list(accumulate(prompts.left_tokens.take(top).tolist()))
        return top[: bisect_left(tokens, max_tokens) + 1]

    def _crowded(self, view: StepView, first: RequestRow) -> bool:
        """Whether nobody should be admitted, for want of KV memory that those who are in will need.

        first: the waiting prompt to admit. What prompts under way have yet to take is theirs already.
        """
        if view.previous_empty or not view.running:  # nobody can be held back, or nobody needs it
            return False
        promised = sum(blocks_for(row.remaining_tokens, view.block_size) for row in view.prefills)
        room = view.free_blocks - promised - (self._headroom * view.total_blocks if view.decodes else 0)
        if blocks_for(first.total_tokens, view.block_size) <= room:
            return False
        return view.blocks_needed(first) > max(0.0, room)  # one that holds all it needs waits for nothing

    @property
    def _headroom(self) -> float:
        """The share that holds."""
        if self.headroom is not None:
            return self.headroom
        return 0.0 if self.slo == "gap" else 0.02

    def _late_share(self, view: StepView, prompts: Prompts, work_ns: FloatArray) -> float:
        """Share of gaps that may be late after this step: the more, the longer the longest wait is among recent ones.

        So what is given away settles at the waits that it suffices for, as thresholds that rise with what is used do in
        online knapsacks (Zhou, Chakrabarty and Lukose 2008): under light load everybody's, else the longest.
        """
        within = view.waits.share_within(longest_wait(prompts, work_ns, view.now_ns))
        return self.late_share * within**LATE_POWER

    def _limit(
        self, view: StepView, rows: Sequence[RequestRow], alone_ns: int, late_share: float
    ) -> tuple[str, float]:
        """(what bounds a step however much slack there is, its longest duration). late_share: see ``_late_share``."""
        least_ns = one_decode_ns(view, alone_ns)
        if not view.decodes:
            return "idle cap", self.idle_cap * max(least_ns, min(row.slo.tbt_ns for row in rows))
        most_ns = self.stall_cap * max(least_ns, view.min_decode_tbt_ns)
        if self.slo == "deadline":
            return "stall cap", most_ns
        gap_ns = float(view.min_decode_tbt_ns)
        if view.gaps is not None:
            gap_ns = view.gaps.limit_ns(view.decode_tbt_ns, late_share, most_ns, alone_ns)
        short_ns = short_step_ns(view, alone_ns)
        return ("memory", short_ns) if short_ns < gap_ns else ("gap", gap_ns)

    def _saves(
        self,
        view: StepView,
        first: RequestRow,
        sizes: Sizes,
        best: int | None,
        alone_ns: int,
        limit_ns: float,
    ) -> bool:
        """Whether no prompt runs in this step, for the sake of a better one. first: the prompt that would run first."""
        if not (self.saving and view.decodes and self.slo == "deadline"):
            return False
        # With ageing it is the very step that belongs to the most overdue: its bound rests on a chunk in each of them.
        served = view.step % (self.ageing or SERVED_EVERY) == 0
        ends = best is not None and sizes.tokens[best] >= first.remaining_tokens
        too_long = best is None and sizes.times_ns[0] > limit_ns  # no slack is ever enough
        if served or ends or too_long:
            return False
        return worth_saving(sizes, best, alone_ns, view.min_decode_tbt_ns, 1 + view.model.margin)

    def _chunk(
        self, view: StepView, rows: Sequence[RequestRow], alone_ns: int, others: int, late_share: float
    ) -> tuple[int, str, int | None]:
        """(prompt tokens, what bound them, time they may take) of this step.

        rows: prompts in the order in which they are served. others: how many wait behind these.
        late_share: see ``_late_share``.
        """
        room = min(view.max_tokens, self.token_budget or view.max_tokens) - view.decode_tokens
        if room <= 0 or not rows:
            return 0, "memory" if room > 0 else "decodes", None
        known = judged(view.model, room, self.cold_chunk)
        if not view.model.ready:
            return known, "cold model", None
        limit, limit_ns = self._limit(view, rows, alone_ns, late_share)
        tokens = candidates(view.decode_tokens, known, rows, TILES if self.tiles else range(16, 8193, 16))
        sizes = sizes_within(view.model, view.decode_shape, rows, tokens, limit_ns)
        spare_ns = harmless_ns(view, alone_ns) if view.decodes and self.slo == "deadline" else np.inf
        if self.slo == "gap" and self.least_wait:
            best: int | None = least_wait(view, rows, sizes, alone_ns, others)
        else:
            best = fastest(sizes, spare_ns)
        if self._saves(view, rows[0], sizes, best, alone_ns, limit_ns):
            return 0, "saving", round(limit_ns)
        if best is None:
            added = added_misses(view, alone_ns, sizes.times_ns)
            return sizes.tokens[least_harm(sizes, added)], "floor", round(limit_ns)
        if sizes.tokens[best] == tokens[-1]:
            limit = "prompts" if tokens[-1] < known else "engine" if known == room else "cold model"
        elif best < len(sizes.tokens) - 1:
            limit = "slack" if sizes.times_ns[-1] > spare_ns else "tile"
        return sizes.tokens[best], limit, round(limit_ns)
