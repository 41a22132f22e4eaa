"""What a worker is told: whom to talk to, what requests are judged by, and which of them are its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import SloClassSettings, Strict
from sarathi_plugin.core import RequestTimeline
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.load.client import Endpoint
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.loadtest.plan import from_rows
from sarathi_plugin.loadtest.words import as_text
from sarathi_plugin.workload.synthetic import workload_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sarathi_plugin.workload.model import Workload


class Assignment(Strict):
    """One worker's part of a run, small enough for a message: lengths and contents, not prompts.

    curve: c0, c1, c2 of the prefill curve. text: prompts of words (for servers that take no token ids); chat: sent
    to the chat endpoint, which implies text. rows: see ``plan.to_rows``.
    """

    url: str
    model: str
    vllm: bool
    text: bool = False
    chat: bool = False
    read_timeout_s: float = 300.0
    total_timeout_s: float = 1800.0
    classes: dict[str, SloClassSettings]
    default_class: str
    curve: tuple[float, float, float]
    seed: int
    name: str
    rows: list[list[Any]]

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
        return as_text(workload, chat=self.chat) if self.text or self.chat else workload


def pack(timeline: RequestTimeline) -> dict[str, Any]:
    """A timeline as a message carries it."""
    return asdict(timeline)


def unpack(data: Mapping[str, Any], shift_ns: int) -> RequestTimeline:
    """A timeline from a message, its clock shifted by so much."""

    def moved(value: int | None) -> int | None:
        return None if value is None else value + shift_ns

    times = {
        "arrival_ns": data["arrival_ns"] + shift_ns,
        "sent_ns": moved(data["sent_ns"]),
        "end_ns": data["end_ns"] + shift_ns,
        "token_ns": tuple(time_ns + shift_ns for time_ns in data["token_ns"]),
    }
    return RequestTimeline(**{**data, **times})
