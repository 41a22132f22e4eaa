"""What a stream of completion events says, without I/O: token times, text, usage, how it ended."""

from __future__ import annotations

import json
from typing import Any


class StreamError(ValueError):
    """The server sent something that is not a completion stream, or reported an error inside it."""


class CompletionStream:
    """Reads events of ``/v1/completions`` and ``/v1/chat/completions`` and times their tokens.

    Where events carry usage (vLLM's ``continuous_usage_stats``) the growth of ``completion_tokens`` gives the tokens
    of an event, so a step that yields several tokens is seen as such, and a token without visible text is not lost.
    Elsewhere every event with content is one token; when the final usage knows of a different number, that many
    tokens are spread evenly over the events.
    ``token_ids`` holds the ids of the tokens where the server was asked for them.
    """

    def __init__(self) -> None:
        self.text = ""
        self.finish_reason: str | None = None
        self.done = False
        self.prompt_tokens = 0
        self.events = 0
        self.token_ids: list[int] = []
        self._token_ns: list[int] = []
        self._content_ns: list[int] = []
        self._final_tokens = 0
        self._counted = False

    @property
    def complete(self) -> bool:
        """Whether the server said that it is through; a stream that just stops is not complete."""
        return self.done or self.finish_reason is not None

    @property
    def token_ns(self) -> tuple[int, ...]:
        """Arrival of every token, nanoseconds."""
        if self._counted:
            return tuple(self._token_ns)
        total, events = self._final_tokens, self._content_ns
        if not total or not events:
            return tuple(events)
        return tuple(events[i * len(events) // total] for i in range(total))

    def take(self, data: str, now_ns: int) -> int:
        """Take one event that arrived at ``now_ns``; returns the tokens it brought. Raises StreamError."""
        self.events += 1
        if data.strip() == "[DONE]":
            self.done = True
            return 0
        event = self._parse(data)
        if event.get("error"):
            raise StreamError(f"server: {_message(event['error'])}")
        choices = event.get("choices") or []
        if not isinstance(choices, list):
            raise StreamError(f"malformed: event {self.events} has no list of choices")
        content = [self._take_choice(choice) for choice in choices]
        return self._take_usage(event.get("usage"), any(content), bool(choices), now_ns)

    def _parse(self, data: str) -> dict[str, Any]:
        try:
            event = json.loads(data)
        except ValueError as error:
            raise StreamError(f"malformed: event {self.events} is not JSON: {data[:80]!r}") from error
        if not isinstance(event, dict):
            raise StreamError(f"malformed: event {self.events} is not an object: {data[:80]!r}")
        return event

    def _take_choice(self, choice: Any) -> bool:
        """Note text and finish reason of one choice; returns whether it has content."""
        if not isinstance(choice, dict):
            raise StreamError(f"malformed: event {self.events} has a choice that is not an object")
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        delta = choice.get("delta")
        source = delta if isinstance(delta, dict) else choice
        text = source.get("content") or source.get("text") or ""
        self.text += str(text)
        self.token_ids += choice.get("token_ids") or []
        hidden = ("reasoning", "reasoning_content", "tool_calls")
        return bool(text) or any(source.get(key) for key in hidden)

    def _take_usage(self, usage: Any, content: bool, choices: bool, now_ns: int) -> int:
        tokens = int(content)
        if isinstance(usage, dict):
            self.prompt_tokens = int(usage.get("prompt_tokens") or self.prompt_tokens)
            self._final_tokens = int(usage.get("completion_tokens") or 0)
            # A running count is there no later than the first content; a usage that comes later is the final one.
            self._counted = self._counted or (choices and not self._content_ns)
            if self._counted:
                tokens = max(0, self._final_tokens - len(self._token_ns))
                self._token_ns += [now_ns] * tokens
        if content:
            self._content_ns.append(now_ns)
        return tokens


def _message(error: Any) -> str:
    """The words of an error object in the OpenAI style, or of anything else."""
    if isinstance(error, dict) and error.get("message"):
        return str(error["message"])[:300]
    return str(error)[:300]
