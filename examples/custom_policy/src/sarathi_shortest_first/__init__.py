"""Shortest remaining prompt first: a scheduling policy for vLLM in one file.

vllm serve MODEL --scheduler shortest-first
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from sarathi_plugin.core import RequestRow, StepPlan, StepView
from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.policies.base import Policy

if TYPE_CHECKING:
    from collections.abc import Callable

NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class ShortestFirst(Policy):
    """Short prompts overtake long ones; a prompt that has waited ``patience_s`` seconds is overtaken no more."""

    token_budget: Annotated[int, Field(gt=0)] = 512
    patience_s: Annotated[float, Field(gt=0)] = 10.0

    def plan(self, view: StepView) -> StepPlan:
        """Decodes first (as always), then prompts by what is left of them."""

        def key(row: RequestRow) -> tuple[bool, int]:
            patient = view.now_ns - row.arrival_ns < self.patience_s * NS_PER_S
            return patient, row.remaining_tokens if patient else row.arrival_ns

        return StepPlan(
            budget=self.token_budget,
            limit="fixed",
            prefills=sorted(view.prefills, key=key),
            waiting=sorted(view.waiting, key=key),
        )


@hookimpl
def register_policies(register: Callable[[str, type[Policy]], None]) -> None:
    """Offer it under the name that ``--scheduler`` takes."""
    register("shortest-first", ShortestFirst)
