"""``sarathi-static``: Sarathi-Serve as published (OSDI'24, arXiv 2403.02310, Algorithm 3).

Decodes first and always; then prompts under way; then new ones; under a fixed budget of tokens a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from sarathi_plugin.core import StepPlan
from sarathi_plugin.policies.base import Policy, by_arrival

if TYPE_CHECKING:
    from sarathi_plugin.core import StepView


@dataclass(frozen=True)
class SarathiStatic(Policy):
    """Stall-free batching under a fixed budget. token_budget: tokens a step, decodes included."""

    coasts = True
    token_budget: Annotated[int, Field(gt=0)] = 512

    def plan(self, view: StepView) -> StepPlan:
        """Decodes, then chunks in arrival order, ``token_budget`` together."""
        return StepPlan(budget=self.token_budget, limit="fixed", prefills=by_arrival(view.prefills))

    def max_batched_tokens(self, max_model_len: int) -> int | None:
        """Just the budget: nothing larger is ever scheduled."""
        del max_model_len
        return self.token_budget
