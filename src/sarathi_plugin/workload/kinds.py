"""Kinds of traffic by name, drawn from a seed: the lengths of published data sets, and mixes of them.

For one kind, seed and count the lengths, classes, shared content and the pattern of arrivals are the same at every
rate. The knots of ShareGPT and Azure are percentiles of the public traces, with a few more where the data are steep or
jump. Those of arXiv were chosen by hand to meet the published median, P90 and standard deviation, because its lengths
are not public: between them its shape is a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from sarathi_plugin.config import ConfigError
from sarathi_plugin.workload.arrivals import ArrivalProcess, Gamma, Poisson, Streams
from sarathi_plugin.workload.lengths import Figures, LengthModel, QuantileLengths, knots
from sarathi_plugin.workload.sessions import QUESTION, Sessions
from sarathi_plugin.workload.trace import Trace, TraceRequest, with_arrivals

SHAREGPT_8K = LengthModel(
    QuantileLengths(
        knots(
            "0:1 1:12 5:29 10:74 20:382 30:777 40:1203 50:1730 60:2401 70:3235 80:4278 90:5696 95:6563 99:7434 100:8141"
        ),
        Figures(1730, 5696, 2088),
    ),
    QuantileLengths(
        knots(
            "0:2 1:6 5:44 10:84 20:181 30:271 40:346 50:415 60:493 70:581 80:683 90:834 95:920 99:998 100:1024"
        ),
        Figures(415, 834, 266),
    ),
    max_total=8192,
    source="Sarathi-Serve (OSDI 2024), Table 2, openchat_sharegpt4; percentiles and the output deviation from the "
    "30,731 rows of sharegpt_8k_filtered_stats_llama2_tokenizer.csv in project-etalon/etalon (the table prints 101)",
)
"""ShareGPT conversations, every round a request of its own."""

ARXIV_16K = LengthModel(
    QuantileLengths(
        knots("0:400 1:1300 10:3260 25:4880 50:7059 75:9830 90:12985 95:14400 99:15900 100:16300"),
        Figures(7059, 12985, 3638),
    ),
    QuantileLengths(
        knots(
            "0:20 1:60 10:117 25:153 50:208 75:282 90:371 93:400 95:700 98:1400 99:1600 100:2150",
        ),
        Figures(208, 371, 265),
    ),
    max_total=16384,
    source="Sarathi-Serve (OSDI 2024), Table 2, arxiv_summarization (its two output deviations, 101 and 265, may be "
    "swapped: the public ShareGPT trace has 266)",
)
"""Summaries of papers: long prompts, short outputs, of which a few in a hundred run away."""

AZURE_CONVERSATION = LengthModel(
    QuantileLengths(
        knots(
            "0:2 1:29 5:181 10:207 20:387 30:403 40:703 45:984 50:1020 60:1071 70:1130 80:1315 85:1690 89.6:2690 "
            "90.4:2790 91:3291 92:4073 95:4083 98:4098 99:4142 99.2:4180 99.5:4831 99.9:6179 99.99:7668 100:14050"
        ),
        Figures(1020, 2734.5, 1109, 4142),
    ),
    QuantileLengths(
        knots(
            "0:7 1:16 5:41 10:54 20:77 30:91 40:103 45:113 50:129 55:151 60:177 65:217 66:237 68:375 70:384 80:400 "
            "90:424 95:451 98:540 99:601 99.5:630 99.9:954 100:1000"
        ),
        Figures(129, 424, 163, 601),
    ),
    max_total=16384,
    source="Azure LLM inference trace 2023 (conversation), CC-BY",
)
"""19,366 requests of a production chat service over 58 minutes."""

LONG_CONTEXT = LengthModel(
    QuantileLengths(knots("0:4096 25:12000 50:24000 75:48000 90:80000 99:120000 100:128000")),
    QuantileLengths(knots("0:16 25:128 50:256 75:480 90:800 99:1500 100:2000")),
    max_total=131072,
    source="chosen for this project, not measured",
)
"""Questions about whole books and code bases, up to 128k tokens."""


class Part(NamedTuple):
    """One share of a mix (0 to 1): requests of these lengths with this label and SLO class."""

    share: float
    kind: str
    lengths: LengthModel
    slo_class: str = ""


@dataclass(frozen=True, slots=True)
class Mix:
    """Unrelated requests, each drawn from one of the parts, whose shares add up to 1."""

    parts: tuple[Part, ...]

    @property
    def max_total(self) -> int:
        """Most tokens of any request."""
        return max(part.lengths.max_total for part in self.parts)

    def draw(self, name: str, count: int, streams: Streams) -> list[TraceRequest]:
        """So many requests, all arriving at zero; ids are the name and a number."""
        ends = np.cumsum([part.share for part in self.parts])[:-1]
        chosen = np.searchsorted(ends, streams.labels.random(count), side="right")
        prompt_draws, output_draws = streams.prompts.random(count), streams.outputs.random(count)
        lengths = np.array([part.lengths.at(prompt_draws, output_draws) for part in self.parts])
        of_chosen = lengths[chosen, :, np.arange(count)].tolist()
        return [
            TraceRequest(
                request_id=f"{name}-{i}",
                offset_ns=0,
                prompt_tokens=prompt,
                output_tokens=output,
                slo_class=self.parts[part].slo_class,
                kind=self.parts[part].kind,
            )
            for i, (part, (prompt, output)) in enumerate(zip(chosen.tolist(), of_chosen, strict=True))
        ]


class Source(Protocol):
    """What a kind's requests are drawn from."""

    @property
    def max_total(self) -> int:
        """Most tokens of any request."""

    def draw(self, name: str, count: int, streams: Streams) -> list[TraceRequest]:
        """So many requests, all arriving at zero; ids are the name and a number."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of traffic that can be asked for by name.

    max_total_tokens: no request needs a longer model. slo_classes: the classes its requests name, which the server
    must know. arrivals: the process used unless another is asked for.
    """

    name: str
    description: str
    source: Source
    arrivals: ArrivalProcess = field(default_factory=Poisson)
    slo_classes: tuple[str, ...] = ()

    @property
    def max_total_tokens(self) -> int:
        """The model length that holds every request of this kind."""
        return self.source.max_total


CHAT_SESSIONS = Sessions(
    systems=(40, 220, 900), first=QUESTION, added=QUESTION, answer=SHAREGPT_8K.output, label="chat", turns=(2, 10),
    max_total=8192,
)  # fmt: skip
"""People who chat: answers of ShareGPT lengths, the rest chosen for this project."""

_CHATS = Mix((Part(1.0, "chat", SHAREGPT_8K),))
_KINDS = (
    Kind("sharegpt-like", "Chats of ShareGPT lengths.", _CHATS),
    Kind("arxiv-like", "Summaries of papers: long prompts.", Mix((Part(1.0, "document", ARXIV_16K),))),
    Kind(
        "azure-conv-like",
        "Chats of the lengths a production service saw in 2023.",
        Mix((Part(1.0, "chat", AZURE_CONVERSATION),)),
    ),
    Kind(
        "mixed-classes",
        "70 % interactive chats of ShareGPT lengths, 30 % documents of arXiv lengths.",
        Mix((Part(0.7, "chat", SHAREGPT_8K, "interactive"), Part(0.3, "document", ARXIV_16K, "batch"))),
        slo_classes=("interactive", "batch"),
    ),
    Kind("agentic", "Agents at work: shared system prompts, contexts that grow turn by turn.", Sessions()),
    Kind("chat-sessions", "Chats of several turns, each with all that was said before.", CHAT_SESSIONS),
    Kind(
        "long-context",
        "Prompts of 4k to 128k tokens with short outputs.",
        Mix((Part(1.0, "long", LONG_CONTEXT),)),
    ),
    Kind(
        "spiky",
        "Chats of ShareGPT lengths in bursts (gamma gaps, coefficient of variation 3).",
        _CHATS,
        Gamma(cv=3),
    ),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _KINDS}
"""Every kind of traffic by its name."""


def make_trace(
    kind: str, *, rate: float, count: int, seed: int, arrivals: ArrivalProcess | None = None
) -> Trace:
    """So many requests of a kind at a mean rate (requests a second), with its own arrivals unless others are given.

    Rate and arrivals change nothing but the times. Raises ConfigError for an unknown kind or bad numbers.
    """
    if kind not in KINDS:
        raise ConfigError(f"No kind of workload {kind!r}: use one of {', '.join(KINDS)}.")
    if count < 1:
        raise ConfigError(f"A workload needs at least one request, not {count}.")
    requests = KINDS[kind].source.draw(kind, count, Streams.of(seed))
    return with_arrivals(Trace(kind, tuple(requests)), rate, seed, arrivals or KINDS[kind].arrivals)
