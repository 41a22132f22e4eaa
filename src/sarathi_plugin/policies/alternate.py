"""``alternate``: chunked prefills without mixing, the "chunking only" ablation of Sarathi-Serve (its Table 4).

Steps take turns: one carries only prompt chunks, the next only decodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from sarathi_plugin.core import StepPlan
from sarathi_plugin.policies.base import Policy, by_arrival, next_fits

if TYPE_CHECKING:
    from sarathi_plugin.core import StepView


@dataclass(frozen=True)
class Alternate(Policy):
    """Chunks of up to ``token_budget`` tokens and decodes, in turns."""

    coasts = True
    token_budget: Annotated[int, Field(gt=0)] = 512

    def plan(self, view: StepView) -> StepPlan:
        """Prompts on even steps, decodes on odd ones; whoever has no rival has every step."""
        rivals = bool(view.decodes) and view.has_prefill_work and not view.previous_empty
        if rivals and (view.step % 2 or not (view.prefills or next_fits(view))):
            return StepPlan(
                budget=self.token_budget,
                limit="fixed",
                skip_prefills=True,
                max_running=view.running,
                reason="decode turn",
            )
        return StepPlan(
            budget=self.token_budget,
            limit="fixed",
            prefills=by_arrival(view.prefills),
            skip_decodes=rivals,
            reason="prefill turn" if rivals else "",
        )

    def max_batched_tokens(self, max_model_len: int) -> int | None:
        """Just the budget."""
        del max_model_len
        return self.token_budget
