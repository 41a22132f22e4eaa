"""What a step carries, read from vLLM's SchedulerOutput: all its duration depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sarathi_plugin.core import StepShape

if TYPE_CHECKING:
    from collections.abc import Mapping


class Carried(NamedTuple):
    """One step: its shape, how many prompt chunks, and whose answers get a token of it."""

    shape: StepShape
    chunks: int
    due: list[bool]


class ShapeReader:
    """Tells prompts from decodes: a request decodes from the step after the one that finished its prompt."""

    def __init__(self) -> None:
        self.decoding: set[str] = set()

    def read(self, output: Any, requests: Mapping[str, Any]) -> Carried:
        """Read right after ``schedule``: the next one moves the requests on."""
        decoding = self.decoding
        for name in output.preempted_req_ids or ():
            decoding.discard(name)
        rows = tokens = context = chunks = prefill = 0
        pairs = 0.0
        due = []
        for name, count in output.num_scheduled_tokens.items():
            request = requests[name]
            before = request.num_computed_tokens - count
            yields = not request.is_prefill_chunk
            due.append(yields)
            if name in decoding:
                rows += 1
                tokens += count
                context += before
            else:
                chunks += 1
                prefill += count
                pairs += count * (before + count / 2)
                if yields:
                    decoding.add(name)
        return Carried(StepShape(rows, tokens, context, prefill, pairs), chunks, due)

    def forget(self, name: str) -> None:
        """The request has ended."""
        self.decoding.discard(name)
