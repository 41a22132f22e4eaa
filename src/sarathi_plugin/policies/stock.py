"""``vllm``: stock decisions with our telemetry; the ablation arm that shows what the plugin itself costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.core import StepPlan
from sarathi_plugin.policies.base import Policy

if TYPE_CHECKING:
    from sarathi_plugin.core import StepView

STOCK = StepPlan()


@dataclass(frozen=True)
class Stock(Policy):
    """Touches no lever."""

    coasts = True

    def plan(self, view: StepView) -> StepPlan:
        """Stock vLLM."""
        del view
        return STOCK
