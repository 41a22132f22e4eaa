"""``request-level``: static batching (FasterTransformer, as Sarathi-Serve reproduces it).

A batch is admitted when the engine is empty and runs until its last request ends; nobody joins it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.core import StepPlan
from sarathi_plugin.policies.base import Policy, blocks_for, by_arrival

if TYPE_CHECKING:
    from sarathi_plugin.core import StepView


@dataclass(frozen=True)
class RequestLevel(Policy):
    """One closed batch at a time, KV memory reserved for the longest possible answers."""

    whole_prompts = True
    coasts = True

    def plan(self, view: StepView) -> StepPlan:
        """Admit a batch when nobody runs; otherwise nobody."""
        reserved = blocks_for(view.max_model_tokens, view.block_size)
        room = view.running or max(1, view.total_blocks // reserved)
        return StepPlan(
            limit="engine", prefills=by_arrival(view.prefills), max_running=room, whole_prompts=True
        )
