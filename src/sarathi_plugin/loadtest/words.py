"""Prompts as plain words, for chats and for servers that take no token ids.

Where the server counts tokens (``/tokenize``), words are chosen so that a prompt has exactly the length asked for;
elsewhere it is about one token a word.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sarathi_plugin.workload.model import Message, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sarathi_plugin.workload.model import ScheduledRequest

_TEXT = (
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what all "
    "were when we there can an your which their said if do will each about how up out them then she many some so "
    "these would other into has more her two like him see time could no make than first been its who now people my "
    "made over did down only way find use may water long little very after words called just where most know"
)
WORDS = tuple(_TEXT.split(" "))
"""Short frequent words: one token each in the vocabularies of most models."""


class Costs(NamedTuple):
    """What words cost a server's tokenizer, tokens. base: of a prompt of the first word alone, template included.

    costs: of each of ``WORDS`` when it follows another one.
    """

    base: int
    costs: tuple[int, ...]

    @property
    def shortest(self) -> int:
        """The shortest prompt that any length from there on can be made of."""
        reach = _ways(self.costs, 4 * max(self.costs))
        gaps = [total for total, word in enumerate(reach) if total and word is None]
        return self.base + (max(gaps) + 1 if gaps else 0)


def text_of(token_ids: Sequence[int]) -> str:
    """One word for each token id; equal ids give equal words, so that shared prefixes stay shared."""
    return " ".join(WORDS[token % len(WORDS)] for token in token_ids)


def exact_text(token_ids: Sequence[int], tokens: int, costs: Costs) -> str:
    """Words as the ids say, ended so that the prompt has ``tokens`` tokens; at least ``costs.shortest`` of them."""
    left = max(tokens, costs.shortest) - costs.base
    spare = 2 * max(costs.costs)
    chosen = [0]
    for token in token_ids[1:]:
        number = token % len(WORDS)
        if left - costs.costs[number] < spare:
            break
        chosen.append(number)
        left -= costs.costs[number]
    reach = _ways(costs.costs, left)
    while left:
        last = reach[left]
        if last is None:
            raise ValueError(f"No words make {left} tokens.")
        chosen.append(last)
        left -= costs.costs[last]
    return " ".join(WORDS[number] for number in chosen)


def _ways(costs: Sequence[int], most: int) -> list[int | None]:
    """For every number of tokens up to ``most`` a word to begin with, None where no words add up to it."""
    found: list[int | None] = [None] * (most + 1)
    for total in range(1, most + 1):
        for number, cost in enumerate(costs):
            if cost and (cost == total or (cost < total and found[total - cost] is not None)):
                found[total] = number
                break
    return found


def learn(count: Callable[[str], int]) -> Costs | None:
    """Costs by asking what texts cost, ``count`` the tokens of one as a whole prompt; None when they do not add up.

    They do where a tokenizer splits at spaces, as those of all common models do; three texts are tried.
    """
    first = WORDS[0]
    base = count(first)
    costs = Costs(base, tuple(count(f"{first} {word}") - base for word in WORDS))
    if min(costs.costs) < 1 or math.gcd(*costs.costs) != 1:
        return None
    trials = (range(0, 40), range(7, 3000, 13), [5] * 30)
    for ids in trials:
        numbers = [0, *(i % len(WORDS) for i in ids)]
        expected = base + sum(costs.costs[number] for number in numbers[1:])
        if count(" ".join(WORDS[number] for number in numbers)) != expected:
            return None
    return costs


def as_text(workload: Workload, *, chat: bool, costs: Costs | None = None) -> Workload:
    """The same workload with words for prompts, as chat messages when wanted; of exact length where costs are known."""
    return Workload(workload.name, tuple(_worded(request, chat, costs) for request in workload.requests))


def _worded(request: ScheduledRequest, chat: bool, costs: Costs | None) -> ScheduledRequest:
    ids = [token for token in request.prompt if isinstance(token, int)]
    if costs is None:
        text, tokens = text_of(ids), request.prompt_tokens
    else:
        tokens = max(request.prompt_tokens, costs.shortest)
        text = exact_text(ids, tokens, costs)
    return replace(request, prompt=(Message("user", text),) if chat else text, prompt_tokens=tokens)
