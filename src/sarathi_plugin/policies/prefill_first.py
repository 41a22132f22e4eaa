"""``prefill-first``: vLLM before chunked prefill, as Sarathi-Serve reproduces it (its ``vllm`` scheduler).

A waiting prompt that fits stops all decodes: the step carries prompts only. The origin of the generation stall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.core import StepPlan
from sarathi_plugin.policies.base import Policy, by_arrival, next_fits

if TYPE_CHECKING:
    from sarathi_plugin.core import StepView


@dataclass(frozen=True)
class PrefillFirst(Policy):
    """Prompts alone first, decodes alone after."""

    whole_prompts = True
    coasts = True

    def plan(self, view: StepView) -> StepPlan:
        """Whole prompts if the next one fits, otherwise decodes."""
        if view.prefills or next_fits(view):
            return StepPlan(
                limit="engine",
                prefills=by_arrival(view.prefills),
                skip_decodes=not view.previous_empty,
                reason="a prompt is computed",
                whole_prompts=True,
            )
        return StepPlan(limit="engine", max_running=view.running or None, whole_prompts=True)
