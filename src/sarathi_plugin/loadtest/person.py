"""One user of a closed loop: sessions of turns, each with all that was said before, and time to think between them.

Pure: what is drawn comes from the seed and the user's number alone, so the same users do the same on any worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sarathi_plugin.config import ConfigError, Strict
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.loadtest.words import text_of
from sarathi_plugin.workload.arrivals import Streams
from sarathi_plugin.workload.kinds import KINDS
from sarathi_plugin.workload.model import Message, ScheduledRequest
from sarathi_plugin.workload.sessions import Sessions
from sarathi_plugin.workload.synthetic import random_prompt

if TYPE_CHECKING:
    from sarathi_plugin.load.client import Outcome
    from sarathi_plugin.workload.sessions import Turn


class Crowd(Strict):
    """What the users of a closed loop do.

    kind: a kind of traffic that has sessions. think_s: mean time (exponential) between an answer and the next turn.
    duration_s: no turn begins later. scales: multiply the parts of prompts, and answers. max_tokens: a session ends
    before it would need more; None where the server does not say.
    """

    kind: str
    users: int
    think_s: float
    duration_s: float
    seed: int
    prompt_scale: float = 1.0
    output_scale: float = 1.0
    slo_class: str = ""
    max_tokens: int | None = None

    def sessions(self) -> Sessions:
        """What sessions are drawn from. Raises ConfigError when the kind has none, or a first turn may not fit."""
        source = KINDS[self.kind].source
        if not isinstance(source, Sessions):
            able = ", ".join(name for name, kind in KINDS.items() if isinstance(kind.source, Sessions))
            raise ConfigError(f"Workload {self.kind!r} has no sessions for --users: use one of {able}.")
        prompt = max(source.systems) + source.first.knots[-1][1]
        need = prompt * self.prompt_scale + source.answer.knots[-1][1] * self.output_scale
        if self.max_tokens is not None and need > self.max_tokens:
            raise ConfigError(
                f"A first turn of {self.kind} can need {need:.0f} tokens, more than the model's {self.max_tokens}: "
                "scale lengths with --scale."
            )
        return source


class Planned(NamedTuple):
    """A turn: wait so long, then send this."""

    think_ns: int
    request: ScheduledRequest


class Person:
    """Turn after turn: ``plan``, send it, tell the outcome to ``hear``.

    words: prompts are text, not token ids; chat: messages. A turn that failed ends its session: nobody goes on with
    an answer that did not come.
    """

    def __init__(self, crowd: Crowd, user: int, *, words: bool, chat: bool) -> None:
        self._crowd, self._user = crowd, user
        self._words, self._chat = words or chat, chat
        streams = Streams.of(crowd.seed, user)
        self._sessions = crowd.sessions().of_user(user, streams)
        self._thinking = streams.arrivals
        self._turns: list[Turn] = []
        self._ids: list[int] = []
        self._texts: list[Message] = []
        self._number = 0

    def plan(self) -> Planned:
        """The next turn."""
        think_ns = round(self._thinking.exponential(self._crowd.think_s) * NS_PER_S)
        turn = self._next()
        start = turn.system.tokens * self._crowd.prompt_scale + turn.context.tokens * self._crowd.prompt_scale
        new = max(1, round(start) - len(self._ids))
        added = random_prompt(new, self._content)
        self._ids += added
        self._texts.append(Message("user", text_of(added)))
        request = ScheduledRequest(
            request_id=f"user-{self._user}-{self._number}",
            offset_ns=0,
            prompt=self._prompt(),
            prompt_tokens=len(self._ids),
            max_tokens=self._output(turn),
            ignore_eos=True,
            slo_class=self._crowd.slo_class,
            kind="turn",
            return_ids=not self._words,
        )
        self._number += 1
        return Planned(think_ns, request)

    def hear(self, outcome: Outcome) -> None:
        """Take in the answer: the next turn's prompt goes on from it."""
        timeline = outcome.timeline
        if timeline.status != "finished":
            self._turns = []
            return
        self._ids += outcome.token_ids or random_prompt(len(timeline.token_ns), self._content)
        self._texts.append(Message("assistant", outcome.text))

    def _next(self) -> Turn:
        if not self._turns or not self._fits(self._turns[0]):
            self._turns = next(self._sessions)
            first = self._turns[0]
            system = np.random.default_rng([self._crowd.seed, first.system.content])
            length = max(1, round(first.system.tokens * self._crowd.prompt_scale))
            self._ids = list(random_prompt(length, system))
            self._texts = [Message("system", text_of(self._ids))]
            self._content = np.random.default_rng([self._crowd.seed, first.context.content])
        return self._turns.pop(0)

    def _fits(self, turn: Turn) -> bool:
        """Whether the model is long enough for a turn, as far as can be told before it is made."""
        limit = self._crowd.max_tokens
        prompt = max(
            round((turn.system.tokens + turn.context.tokens) * self._crowd.prompt_scale), len(self._ids) + 1
        )
        return limit is None or prompt + self._output(turn) <= limit

    def _output(self, turn: Turn) -> int:
        return max(1, round(turn.output * self._crowd.output_scale))

    def _prompt(self) -> str | tuple[int, ...] | tuple[Message, ...]:
        if self._chat:
            return tuple(self._texts)
        return " ".join(message.content for message in self._texts) if self._words else tuple(self._ids)
