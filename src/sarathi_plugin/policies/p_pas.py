"""``p-pas``: prefill-pressure adaptive scheduling (arXiv 2608.15171; vLLM RFC 52906).

Two budgets chosen by a person, and a rule that switches between them: while at least two prompts are unfinished,
waiting ones counted, and somebody decodes, prompts get no more than the small one together; otherwise the step is as
large as the engine allows. Order and admission are vLLM's. The budgets are those of the paper (2,048 and 16,384), on
which it evaluated prompts of 20,000 to 30,000 tokens; shorter prompts and tighter targets want a smaller one.

As in the paper's patch the small budget bounds the prompt tokens alone; the author's patch for vLLM 0.27 bounds the
whole step instead. ``large_prompt`` is the rule that the author's repository adds as P-PAS+: a single prompt under way
with so much left beside two decodes or more is pressure too (65,536 tokens there; off in the paper and here).
Nothing was guessed: the patches are public.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from sarathi_plugin.core import StepPlan
from sarathi_plugin.policies.base import Policy

if TYPE_CHECKING:
    from sarathi_plugin.core import StepView

MANY = 2
"""Unfinished prompts that are pressure (N_th of the paper)."""

LARGEST = 16_384
"""Tokens a step may carry without pressure (B_max of the paper)."""


@dataclass(frozen=True)
class PrefillPressure(Policy):
    """Two budgets, switched by pressure.

    cap: prompt tokens a step may carry under pressure. large_prompt: tokens left of a single prompt that are pressure
    too, None for never.
    """

    coasts = True
    cap: Annotated[int, Field(gt=0)] = 2048
    large_prompt: Annotated[int, Field(gt=0)] | None = None

    def max_batched_tokens(self, max_model_len: int) -> int | None:
        """The larger budget."""
        del max_model_len
        return LARGEST

    def plan(self, view: StepView) -> StepPlan:
        """The small budget under pressure, else the engine's."""
        if not view.has_prefill_work:
            return StepPlan(limit="no prompts")
        if self._pressed(view):
            return StepPlan(budget=view.decode_tokens + self.cap, limit="pressure")
        return StepPlan(limit="engine")

    def _pressed(self, view: StepView) -> bool:
        if view.decodes and len(view.prefills) + view.waiting_count >= MANY:
            return True
        if self.large_prompt is None or len(view.prefills) != 1 or view.decodes < MANY:
            return False
        return view.prefills[0].remaining_tokens >= self.large_prompt
