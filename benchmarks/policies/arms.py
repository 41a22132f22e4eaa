"""The arms of the bench: stock vLLM at fixed budgets, the published baselines, ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sarathi_plugin.simulate.spec import STOCK, EngineSpec, default_batched_tokens

if TYPE_CHECKING:
    from policies.cells import Cell

BUDGETS = (256, 384, 512, 768, 1024, 2048, 8192)
OURS = "sarathi"


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to schedule. budget: a fixed one. priority: vLLM's own priority queue, documents second."""

    name: str
    scheduler: str
    budget: int | None = None
    priority: bool = False
    policy: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def fixed(self) -> bool:
        """Whether this is stock vLLM with a budget somebody could have chosen."""
        return self.scheduler == STOCK

    def engine(self, cell: Cell) -> EngineSpec:
        """The engine of this arm in a cell: alike in all arms but for scheduler and budget."""
        gpu = cell.machine != "cpu"
        settings = {} if self.scheduler == STOCK else {**cell.settings(), "policy": self.policy}
        from policies.cells import MODEL_TOKENS, SESSION_TOKENS

        return EngineSpec(
            scheduler=self.scheduler,
            sarathi=settings,
            max_num_batched_tokens=self.budget,
            max_num_seqs=256 if gpu else 128,
            max_model_len=SESSION_TOKENS if cell.caches else MODEL_TOKENS,
            block_size=16 if gpu else 32,
            enable_prefix_caching=cell.caches,
            async_scheduling=gpu,
            scheduling_policy="priority" if self.priority else "fcfs",
        )


FIXED = [Arm(f"fixed-{budget}", STOCK, budget) for budget in BUDGETS]
FIXED_PRIORITY = [Arm(f"fixed-{budget}-priority", STOCK, budget, priority=True) for budget in BUDGETS]
NIYAMA = Arm("niyama", "niyama")
BASELINES = [
    *(Arm(name, name) for name in ("sarathi-static", "prefill-first", "orca", "request-level", "alternate")),
    Arm("fair-batching", "fair-batching"),
    Arm("p-pas", "p-pas"),
    *(Arm(f"p-pas-{cap}", "p-pas", policy={"cap": cap}) for cap in (256, 512)),
]
"""P-PAS leaves its budgets to a person and was published for longer prompts: smaller ones compete too."""

FLAGSHIP = Arm(OURS, OURS)


def default_arm(cell: Cell) -> str:
    """The fixed arm that equals vLLM's default on this machine."""
    return f"fixed-{default_batched_tokens(cell.profile)}"
