"""What the checklist is computed from, and what its items look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sarathi_plugin.evaluate.analysis import Results
    from sarathi_plugin.evaluate.knobs import Tuning
    from sarathi_plugin.evaluate.spec import Experiment

Verdict = Literal["pass", "fail", "none"]


@dataclass(frozen=True, slots=True)
class Item:
    """One question. source: the anti-pattern, or ``ours``."""

    source: str
    question: str
    verdict: Verdict
    figure: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """One experiment and its runs.

    arms: facts of every arm by name. decode_ms: a lone decode step, None when it is not known. environments: of the
    runs, by key. samples: fewest judged requests of an arm in any cell.
    """

    wanted: Experiment
    arms: Mapping[str, Mapping[str, Any]]
    tuning: Mapping[str, Tuning]
    results: Results
    environments: Mapping[str, Mapping[str, Any]]
    decode_ms: float | None
    samples: Mapping[str, int]


def mark(good: bool) -> Verdict:
    """As a verdict."""
    return "pass" if good else "fail"
