"""What the demo's users ask and what its documents say. Written for it; free of anybody's copyright."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

QUESTIONS = (
    "Explain to a child why the sky is blue and sunsets are red.",
    "Write a short story about a lighthouse keeper who finds a letter.",
    "How does bread dough rise, and what can go wrong?",
    "Give me a packing list for a week of hiking in the mountains, with reasons.",
    "What did people use for light before electricity?",
    "Describe a walk through a busy harbour at dawn.",
    "Explain how a bicycle stays upright.",
    "Plan a birthday party for twenty guests on a small budget.",
    "What makes a good teacher? Give examples.",
    "Explain how rain forms, step by step.",
    "Write a letter to a friend who moved to another city.",
    "Compare tea and coffee for somebody who has tried neither.",
)

CLOSING_QUESTION = (
    "In two or three sentences: why is it annoying when a talking person suddenly stops mid-sentence?"
)

_WHO = (
    "The harbour office",
    "The night shift",
    "The engineer",
    "A visiting inspector",
    "The crew",
    "The archivist",
)
_DID = ("recorded", "measured", "reported", "compared", "inspected", "described", "questioned")
_WHAT = (
    "the level of the river",
    "a delay of the northern ferry",
    "the wear of the old crane",
    "the stock of spare cable",
    "the weight of the cargo",
    "the state of the sea wall",
    "an unusual noise in the pump house",
)
_WHEN = (
    "before sunrise",
    "in the early afternoon",
    "during the storm",
    "after the second inspection",
    "at low tide",
)
_SO = (
    "and asked for a second opinion",
    "and found no reason for alarm",
    "which agreed with the figures of the year before",
    "although the instruments had just been replaced",
    "and filed the note under open questions",
)


def document(rng: np.random.Generator, sentences: int) -> str:
    """A report of so many generated sentences, as long and as dull as reports are."""
    pick = rng.integers
    parts = []
    for number in range(1, sentences + 1):
        who, did, what, when, so = (words[pick(len(words))] for words in (_WHO, _DID, _WHAT, _WHEN, _SO))
        parts.append(f"{number}. {who} {did} {what} {when}, {so}; the reading was {pick(10, 990)}.")
    return "Summarise the following report.\n\n" + "\n".join(parts)
