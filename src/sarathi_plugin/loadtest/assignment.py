"""What a worker is told: whom to talk to, what requests are judged by, and which of them are its own."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import Field

from sarathi_plugin.config import SloClassSettings, Strict
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.load.client import Endpoint
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.loadtest.person import Crowd, Person
from sarathi_plugin.loadtest.plan import from_rows
from sarathi_plugin.loadtest.validity import Asked
from sarathi_plugin.loadtest.words import Costs, as_text
from sarathi_plugin.records import RequestTimeline
from sarathi_plugin.workload.synthetic import workload_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sarathi_plugin.workload.model import ScheduledRequest, Workload

_FIELDS = tuple(field.name for field in fields(RequestTimeline))


class Assignment(Strict):
    """One worker's part of a run, small enough for a message: lengths and contents, not prompts.

    curve: c0, c1, c2 of the prefill curve. text: prompts of words (for servers that take no token ids); chat: sent
    to the chat endpoint, which implies text; costs: what the words cost, where the server tells. rows: see
    ``plan.to_rows``; in a closed loop ``crowd`` and the numbers of ``people`` stand in their place.
    """

    url: str
    model: str
    vllm: bool
    text: bool = False
    chat: bool = False
    costs: Costs | None = None
    read_timeout_s: float = 300.0
    total_timeout_s: float = 1800.0
    classes: dict[str, SloClassSettings]
    default_class: str
    curve: tuple[float, float, float]
    seed: int
    name: str
    rows: list[list[Any]] = Field(default_factory=list)
    crowd: Crowd | None = None
    people: list[int] = Field(default_factory=list)

    def endpoint(self) -> Endpoint:
        """The server."""
        return Endpoint(
            self.url,
            self.model,
            self.vllm,
            read_timeout_s=self.read_timeout_s,
            total_timeout_s=self.total_timeout_s,
        )

    def targets(self) -> Targets:
        """What requests are judged by."""
        classes = {name: settings.build(name) for name, settings in self.classes.items()}
        return Targets(classes[self.default_class], PrefillCurve(*self.curve), classes)

    def workload(self) -> Workload:
        """The requests with their prompts, made here from the seed."""
        workload = workload_of(from_rows(self.name, self.rows), self.seed)
        words = self.text or self.chat
        return as_text(workload, chat=self.chat, costs=self.costs) if words else workload

    def users(self, crowd: Crowd) -> list[Person]:
        """The users of a closed loop."""
        return [Person(crowd, user, words=self.text, chat=self.chat) for user in self.people]

    def asked(self, request: ScheduledRequest) -> Asked:
        """The lengths that are verified: prompts where they are known in tokens, answers where they can be forced."""
        exact = not (self.text or self.chat) or (self.costs is not None and self.crowd is None)
        return Asked(request.prompt_tokens if exact else 0, request.max_tokens if self.vllm else 0)


def pack(timeline: RequestTimeline, asked: Asked) -> dict[str, Any]:
    """A timeline and the lengths asked for, as a message carries them."""
    # Not asdict: it copies every token time on its own, and streams are being timed meanwhile.
    return {name: getattr(timeline, name) for name in _FIELDS} | {"asked": list(asked)}


def unpack(data: Mapping[str, Any], shift_ns: int) -> tuple[RequestTimeline, Asked]:
    """A timeline from a message, its clock shifted by so much, and the lengths asked for."""

    def moved(value: int | None) -> int | None:
        return None if value is None else value + shift_ns

    times = {
        "arrival_ns": data["arrival_ns"] + shift_ns,
        "sent_ns": moved(data["sent_ns"]),
        "first_byte_ns": moved(data["first_byte_ns"]),
        "end_ns": data["end_ns"] + shift_ns,
        "token_ns": tuple(time_ns + shift_ns for time_ns in data["token_ns"]),
    }
    values = {**data, **times}
    asked = Asked(*values.pop("asked"))
    return RequestTimeline(**values), asked
