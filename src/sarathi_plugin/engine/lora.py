"""LoRA adapters of those that run, also of those that a plan leaves out of a step."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class LoraRoom:
    """Room for adapters in one vLLM scheduler.

    vLLM admits a request when there is room for its adapter beside those in the step, as if all that run were in it.
    Where some are left out, one adapter too many would run from then on, and an assertion of vLLM's ends the engine. So
    those for whom there is no room are taken out of the queues while such a step is scheduled.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._taken: list[tuple[Any, list[Any], list[Any]]] = []
        """(queue, all that were in it, those taken out)."""

    def fits(self, request_id: str) -> bool:
        """Whether there is room for the adapter of a waiting request, whoever is left out."""
        config, request = self._config, self._scheduler.requests.get(request_id)
        adapter = adapter_of(request) if config and request is not None else 0
        if not adapter:
            return True
        used = adapters_of(self._scheduler.running)
        return adapter in used or len(used) < config.max_loras

    def take_out(self) -> None:
        """Before a step that leaves out some that run."""
        config = self._config
        if not config or self._taken:
            return
        used = adapters_of(self._scheduler.running)
        queues = (getattr(self._scheduler, "kv_holding_waiting", None), self._scheduler.waiting)
        for queue in filter(None, queues):
            everybody, taken = list(queue), []
            for request in everybody:
                adapter = adapter_of(request)
                if adapter and adapter not in used and len(used) >= config.max_loras:
                    taken.append(request)
                elif adapter:
                    used.add(adapter)
            if taken:
                queue.remove_requests(taken)
                self._taken.append((queue, everybody, taken))

    def put_back(self) -> None:
        """After it: each to its old place, behind whoever lost a place in the batch meanwhile."""
        for queue, everybody, taken in self._taken:
            places = {request.request_id: place for place, request in enumerate(everybody)}
            order = sorted(chain(queue, taken), key=lambda request: places.get(request.request_id, -1))
            queue.remove_requests(list(queue))
            for request in order:
                queue.add_request(request)
        self._taken.clear()

    @property
    def _config(self) -> Any:
        """None where no adapters are served."""
        return getattr(self._scheduler, "lora_config", None)


def adapter_of(request: Any) -> int:
    """0 for the base model."""
    lora = getattr(request, "lora_request", None)
    return int(lora.lora_int_id) if lora else 0


def adapters_of(requests: Iterable[Any]) -> set[int]:
    """Without the base model."""
    return set(filter(None, map(adapter_of, requests)))
