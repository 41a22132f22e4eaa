"""The demo's traffic: chats that stream while long documents arrive. Same bytes and send times for both arms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.demo.texts import QUESTIONS, document
from sarathi_plugin.load.server import ServerError
from sarathi_plugin.workload.model import Message, ScheduledRequest, Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from sarathi_plugin.deadlines import PrefillCurve

    Tokenize = Callable[[str], list[int]]

WARM_UP = "warm-up"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Sizes of the traffic; its pace follows from what the machine can do (see ``build``).

    early_chats start together, late_chats spread over the time of the documents. load: share of the time that
    the documents' prefills alone would keep the machine busy. chat_tokens_range: shortest and longest answer.
    """

    early_chats: int
    late_chats: int
    documents: int
    document_tokens: int
    document_answer: int
    load: float = 0.4
    chat_tokens_range: tuple[int, int] = (48, 144)

    def build(
        self, curve: PrefillCurve, decode_step_s: float, tokenize: Tokenize, rng: np.random.Generator
    ) -> Workload:
        """The workload on a machine with this prefill curve and this lone decode step.

        Documents arrive every (prefill time / load), give or take a quarter; chats keep coming all the time, so some
        stream, some have just begun and some begin while a document is computed.
        """
        every_s = curve.prefill_ns(self.document_tokens) / NS_PER_S / self.load
        first_s = 20 * decode_step_s
        jitter = rng.uniform(-0.25, 0.25, self.documents)
        due = [first_s + every_s * (i + jitter[i] + 0.25) for i in range(self.documents)]
        span_s = first_s + every_s * self.documents
        low, high = self.chat_tokens_range
        starts = [
            *rng.uniform(0, first_s / 2, self.early_chats),
            *rng.uniform(first_s, span_s, self.late_chats),
        ]
        lengths = rng.integers(low, high + 1, len(starts))
        chats = [
            _chat(i, float(start), int(tokens))
            for i, (start, tokens) in enumerate(zip(sorted(starts), lengths, strict=True))
        ]
        documents = [self._document(i, at, tokenize, rng) for i, at in enumerate(due)]
        return Workload.ordered("demo", chats + documents)

    def warm_up(self, tokenize: Tokenize, rng: np.random.Generator) -> Workload:
        """A chat and a document, served before anything is judged: first steps of a server are slow."""
        return Workload.ordered(WARM_UP, [_chat(0, 0.0, 32), self._document(0, 0.2, tokenize, rng)])

    def _document(
        self, number: int, at_s: float, tokenize: Tokenize, rng: np.random.Generator
    ) -> ScheduledRequest:
        return ScheduledRequest(
            request_id=f"document-{number + 1}",
            offset_ns=round(at_s * NS_PER_S),
            prompt=exact_document(self.document_tokens, tokenize, rng),
            prompt_tokens=self.document_tokens,
            max_tokens=self.document_answer,
            ignore_eos=True,
            kind="document",
        )


REAL = Scenario(early_chats=4, late_chats=24, documents=3, document_tokens=2048, document_answer=48)
FAST = Scenario(
    early_chats=4,
    late_chats=32,
    documents=6,
    document_tokens=4096,
    document_answer=48,
    chat_tokens_range=(96, 400),
)


def _chat(number: int, at_s: float, tokens: int) -> ScheduledRequest:
    return ScheduledRequest(
        request_id=f"chat-{number + 1}",
        offset_ns=round(at_s * NS_PER_S),
        prompt=(Message("user", QUESTIONS[number % len(QUESTIONS)]),),
        max_tokens=tokens,
        ignore_eos=True,
        kind="chat",
    )


def exact_document(tokens: int, tokenize: Tokenize, rng: np.random.Generator) -> tuple[int, ...]:
    """Token ids of a generated document, cut to exactly so many tokens."""
    sentences = max(8, tokens // 16)
    while True:
        ids = tokenize(document(rng, sentences))
        if len(ids) >= tokens:
            return tuple(ids[:tokens])
        sentences *= 2


def server_tokenizer(url: str, model: str) -> Tokenize:
    """Tokenise with the server's own tokenizer (vLLM's ``/tokenize``). The function raises ServerError."""

    def tokenize(text: str) -> list[int]:
        try:
            with requests.Session() as session:
                session.trust_env = False
                answer = session.post(f"{url}/tokenize", json={"model": model, "prompt": text}, timeout=60)
                answer.raise_for_status()
                return [int(i) for i in answer.json()["tokens"]]
        except (requests.exceptions.RequestException, ValueError, KeyError, TypeError) as error:
            raise ServerError(f"The server's /tokenize failed ({type(error).__name__}).") from error

    return tokenize
