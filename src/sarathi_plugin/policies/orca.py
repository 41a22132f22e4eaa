"""``orca``: iteration-level batching without chunking (Orca, OSDI'22, as Sarathi-Serve reproduces it).

All decodes and as many whole prompts as fit share a step, and every request reserves KV memory for the longest
possible answer. First tokens come early; streams freeze for as long as the longest prompt takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.core import StepPlan
from sarathi_plugin.policies.base import Policy, blocks_for, by_arrival

if TYPE_CHECKING:
    from sarathi_plugin.core import StepView


@dataclass(frozen=True)
class Orca(Policy):
    """Whole prompts beside decodes."""

    whole_prompts = True
    coasts = True

    def plan(self, view: StepView) -> StepPlan:
        """Everything that fits, prompts whole."""
        reserved = blocks_for(view.max_model_tokens, view.block_size)
        return StepPlan(
            limit="engine",
            prefills=by_arrival(view.prefills),
            max_running=max(1, view.total_blocks // reserved),
            whole_prompts=True,
        )
