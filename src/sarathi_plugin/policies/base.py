"""What every scheduling policy is: a frozen dataclass whose fields are its settings, with one method ``plan``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sarathi_plugin.config import ConfigError, Settings, explain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sarathi_plugin.core import RequestRow, StepPlan, StepView


@dataclass(frozen=True)
class Policy(ABC):
    """Decides what one step carries. No clock, no logging, no metrics inside; the wiring is the engine's.

    A subclass is decorated ``@dataclass(frozen=True)``; its fields become keys under ``policy:`` in the YAML file.
    A field named ``slo`` or ``token_budget`` takes the flag of that name; where one named ``prefix_hits`` is
    false, waiting prompts count whole, whatever the prefix cache holds of them.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)
    whole_prompts: ClassVar[bool] = False
    """The policy never splits a prompt, so one step must be able to hold the longest."""
    coasts: ClassVar[bool] = False
    """With no prompt to compute, the plan stays the same while the same requests decode, and ``plan`` keeps no state:
    a simulation may then take many such steps at once."""

    @abstractmethod
    def plan(self, view: StepView) -> StepPlan:
        """Decide one step. Must not change ``view`` nor block; an exception means stock decisions."""

    def max_batched_tokens(self, max_model_len: int) -> int | None:
        """The ``max_num_batched_tokens`` to serve with when the user set none; None leaves vLLM's own."""
        return max_model_len if self.whole_prompts else None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Build from the settings. Raises ConfigError on an unknown key or a wrong value."""
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = dict(settings.policy)
        if "slo" in known:
            given.setdefault("slo", settings.slo)
        if settings.token_budget != "auto":
            if "token_budget" not in known:
                raise ConfigError(
                    f"The scheduler {settings.scheduler!r} has no token budget; leave --sarathi-token-budget out."
                )
            given["token_budget"] = settings.token_budget
        try:
            return TypeAdapter(cls).validate_python(given)
        except ValidationError as error:
            raise ConfigError(explain(error, f"policy settings of {settings.scheduler!r}", cls)) from error


def by_arrival(rows: Iterable[RequestRow]) -> list[RequestRow]:
    """First come, first served."""
    return sorted(rows, key=lambda row: row.arrival_ns)


def next_fits(view: StepView) -> bool:
    """Whether the prompt that waits longest could be admitted now: a place in the batch and memory for all of it."""
    if not view.waiting_count or view.previous_empty or view.running >= view.max_requests:
        return False
    waiting = view.waiting  # may be empty all the same: not every waiting request need be tracked
    return bool(waiting) and blocks_for(waiting[0].total_tokens, view.block_size) <= view.free_blocks


def blocks_for(tokens: int, block_size: int) -> int:
    """KV blocks that hold so many tokens."""
    return -(-tokens // block_size)
