"""``--fail-if``: conditions on the figures of a run, such as ``fluidity_share<0.99``."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"\s*(?P<name>\w+)\s*(?P<op><=|>=|<|>)\s*(?P<limit>[-+.\deE]+)\s*")


@dataclass(frozen=True, slots=True)
class Threshold:
    """A run fails when its figure ``name`` compares with ``limit`` as ``op`` says."""

    name: str
    op: str
    limit: float

    def fails(self, figures: Mapping[str, float | None]) -> bool:
        """Whether it does; a figure that could not be measured fails too."""
        value = figures[self.name]
        return value is None or _COMPARE[self.op](value, self.limit)

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.limit:g}"


def parse_threshold(text: str, names: Collection[str]) -> Threshold:
    """A condition as a person writes it. Raises ConfigError when it is none, or about an unknown figure."""
    match = _CONDITION.fullmatch(text)
    try:
        limit = float(match["limit"]) if match else None
    except ValueError:
        limit = None
    if match is None or limit is None:
        raise ConfigError(f"--fail-if takes FIGURE<NUMBER (or <=, >, >=), not {text!r}.")
    if match["name"] not in names:
        raise ConfigError(f"--fail-if: no figure {match['name']!r}: use one of {', '.join(names)}.")
    return Threshold(match["name"], match["op"], limit)
