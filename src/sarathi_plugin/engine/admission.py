"""Whom vLLM would admit if a step were left to them: told by what became of such steps, not by the many reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sarathi_plugin.engine.lora import LoraRoom

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sarathi_plugin.core import RequestRow

LONGEST_REST = 64
"""Steps until a request is tried again for which steps were left in vain, at the most; twice as many each time."""


class Admission:
    """Of one vLLM scheduler. reorders: whether its queue takes the order of a plan.

    A waiting request may be kept out by its grammar, its LoRA adapter, a KV transfer, a pause, or by what a later vLLM
    thinks of. Those under way that were left out for it would then stand still for nothing, step after step.
    """

    def __init__(self, scheduler: Any, *, reorders: bool) -> None:
        self.lora = LoraRoom(scheduler)
        self._scheduler = scheduler
        self._reorders = reorders
        self._rests: dict[str, tuple[int, int]] = {}

    def in_vain(self, rows: Iterable[RequestRow], step: int) -> None:
        """A step was left to these, and nobody came in."""
        for row in rows:
            length = min(2 * self._rests.get(row.request_id, (0, 1))[1], LONGEST_REST)
            self._rests[row.request_id] = (step + length, length)

    def gone(self, request_id: str) -> None:
        """A request is in, or has left."""
        self._rests.pop(request_id, None)

    def resting(self, step: int) -> frozenset[str]:
        """Those who are not to be tried in this step."""
        if not self._rests:
            return frozenset()
        return frozenset(name for name, (until, _) in self._rests.items() if step < until)

    def may_overtake(self, row: RequestRow, under_way: Iterable[Any]) -> bool:
        """Whether vLLM admits this one first when the prompts under way are left out, and by priority should."""
        if not self.lora.fits(row.request_id):
            return False
        if self._reorders:
            return True
        queue = getattr(self._scheduler, "kv_holding_waiting", None) or self._scheduler.waiting
        head = queue.peek_request() if queue else None
        if head is None or head.request_id != row.request_id:
            return False
        return all(head.priority <= request.priority for request in under_way)
