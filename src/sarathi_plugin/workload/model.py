"""What a workload is: requests with the times at which they are meant to be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sarathi_plugin.config import ConfigError


class Message(NamedTuple):
    """One turn of a chat."""

    role: str
    content: str


Prompt = str | tuple[int, ...] | tuple[Message, ...]
"""Plain text or token ids (completions), or messages (chat completions)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledRequest:
    """One request of an open-loop workload.

    offset_ns: intended send time after the start of the run. prompt_tokens: length of the prompt where it is known
    beforehand, else 0. max_tokens: most tokens to answer with; with ``ignore_eos`` exactly so many. min_tokens:
    fewest. slo_class: empty for the server's default class. kind: a label for reports ("chat", "document").
    return_ids: ask for the ids of the answer's tokens (vLLM can tell them).
    """

    request_id: str
    offset_ns: int
    prompt: Prompt
    max_tokens: int
    prompt_tokens: int = 0
    min_tokens: int = 0
    ignore_eos: bool = False
    temperature: float = 0.0
    slo_class: str = ""
    kind: str = ""
    return_ids: bool = False

    @property
    def is_chat(self) -> bool:
        """Whether this goes to the chat endpoint."""
        return not isinstance(self.prompt, str) and bool(self.prompt) and isinstance(self.prompt[0], Message)


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in the order of their intended send times. Raises ConfigError when they are not, or repeat an id."""

    name: str
    requests: tuple[ScheduledRequest, ...]

    def __post_init__(self) -> None:
        offsets = [request.offset_ns for request in self.requests]
        if offsets != sorted(offsets) or (offsets and offsets[0] < 0):
            raise ConfigError(f"Workload {self.name!r}: send times must ascend from zero.")
        if len({request.request_id for request in self.requests}) != len(self.requests):
            raise ConfigError(f"Workload {self.name!r}: every request needs an id of its own.")

    @classmethod
    def ordered(cls, name: str, requests: list[ScheduledRequest]) -> Workload:
        """A workload from requests in any order."""
        return cls(name, tuple(sorted(requests, key=lambda request: request.offset_ns)))

    @property
    def span_ns(self) -> int:
        """Time from the first to the last intended send."""
        return self.requests[-1].offset_ns - self.requests[0].offset_ns if self.requests else 0
