"""Sessions whose context grows turn by turn: agents at work, and people who chat.

The lengths of agents and of the parts of a chat are chosen for this project, not measured.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sarathi_plugin.workload.lengths import QuantileLengths, knots
from sarathi_plugin.workload.trace import Segment, TraceRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sarathi_plugin.workload.arrivals import Streams

SYSTEM_TOKENS = (1800, 3200, 5100, 7400)
"""Instructions and tool descriptions of the agents; every session works for one of them."""

TASK = QuantileLengths(knots("0:20 50:300 90:1200 100:2400"))
TOOL_RESULT = QuantileLengths(knots("0:15 25:120 50:400 75:1000 90:2500 100:6000"))
TOOL_CALL = QuantileLengths(knots("0:10 50:120 90:400 99:1000 100:1500"))

QUESTION = QuantileLengths(knots("0:4 25:15 50:40 75:130 90:500 99:1500 100:2500"))
"""What a person writes, the first time or later."""

MOST_SESSIONS = 1_000_000
"""Sessions that one user of a closed loop may have, by far."""


class Turn(NamedTuple):
    """What one turn of a session sends, and how many tokens come back."""

    system: Segment
    context: Segment
    output: int


@dataclass(frozen=True, slots=True)
class Sessions:
    """Interleaved sessions, all arriving at zero: their times come from the arrival process.

    Each turn sends the whole context so far: the system prompt (one of ``systems``), what came first, and every
    answer and addition since. A session ends after a number of turns between ``turns`` (inclusive), or before it would
    need more than ``max_total``. ``active`` of them are under way at any time, and at least half as many other
    requests lie between two turns of one. ``draw`` is open-loop: a turn does not wait for the answer before it, though
    it contains it. In a closed loop (``of_user``) it does.
    """

    systems: tuple[int, ...] = SYSTEM_TOKENS
    first: QuantileLengths = TASK
    added: QuantileLengths = TOOL_RESULT
    answer: QuantileLengths = TOOL_CALL
    label: str = "agent"
    active: int = 16
    turns: tuple[int, int] = (4, 20)
    max_total: int = 32768

    def draw(self, name: str, count: int, streams: Streams) -> list[TraceRequest]:
        """So many requests; ids are the name and a number, ``kind`` is the label."""
        contents = itertools.count(len(self.systems))
        under_way = [self._session(next(contents), streams) for _ in range(self.active)]
        for session in under_way:
            # Met half-way, so that the first requests look like the later ones.
            del session[: int(streams.labels.integers(len(session)))]
        requests = []
        for i in range(count):
            session = under_way.pop(int(streams.labels.integers(self.active // 2)))
            turn = session.pop(0)
            requests.append(
                TraceRequest(
                    request_id=f"{name}-{i}",
                    offset_ns=0,
                    prompt_tokens=turn.system.tokens + turn.context.tokens,
                    output_tokens=turn.output,
                    kind=self.label,
                    segments=(turn.system, turn.context),
                )
            )
            under_way.append(session or self._session(next(contents), streams))
        return requests

    def of_user(self, user: int, streams: Streams) -> Iterator[list[Turn]]:
        """The sessions of one user, one after the other, without end; ``streams`` are this user's own."""
        first = len(self.systems) + user * MOST_SESSIONS
        for content in itertools.count(first):
            yield self._session(content, streams)

    def _session(self, content: int, streams: Streams) -> list[Turn]:
        """One session: the context of a turn is a prefix of the next one's, with its output between."""
        agent = int(streams.labels.integers(len(self.systems)))
        turns = int(streams.labels.integers(*self.turns, endpoint=True))
        system = Segment(agent, self.systems[agent])
        added = self.added.at(streams.prompts.random(turns))
        added[0] = self.first.at(streams.prompts.random(1))[0]
        outputs = self.answer.at(streams.outputs.random(turns))
        ends = (added + outputs).cumsum()
        fits = ends + system.tokens <= self.max_total
        return [
            Turn(system, Segment(content, end - output), output)
            for end, output in zip(ends[fits].tolist(), outputs[fits].tolist(), strict=True)
        ]
