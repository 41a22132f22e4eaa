"""Prompts as plain words, for servers that take no token ids: about one token a word, and not exact."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sarathi_plugin.workload.model import Message, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.workload.model import ScheduledRequest

_TEXT = (
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what all "
    "were when we there can an your which their said if do will each about how up out them then she many some so "
    "these would other into has more her two like him see time could no make than first been its who now people my "
    "made over did down only way find use may water long little very after words called just where most know"
)
WORDS = tuple(_TEXT.split(" "))
"""Short frequent words: one token each in the vocabularies of most models."""


def text_of(token_ids: Sequence[int]) -> str:
    """One word for each token id; equal ids give equal words, so that shared prefixes stay shared."""
    return " ".join(WORDS[token % len(WORDS)] for token in token_ids)


def as_text(workload: Workload, *, chat: bool) -> Workload:
    """The same workload with words for prompts, as chat messages when wanted."""
    return Workload(workload.name, tuple(_worded(request, chat=chat) for request in workload.requests))


def _worded(request: ScheduledRequest, *, chat: bool) -> ScheduledRequest:
    text = text_of([token for token in request.prompt if isinstance(token, int)])
    return replace(request, prompt=(Message("user", text),) if chat else text)
