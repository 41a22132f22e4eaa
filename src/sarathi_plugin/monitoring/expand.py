"""What Grafana does with a dashboard before it asks Prometheus: variables become values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LABEL_VALUES = re.compile(r"^label_values\((?P<selector>.+), *(?P<label>\w+)\)$")
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True, slots=True)
class Window:
    """The time range of a dashboard, seconds. scrape: interval between scrapes."""

    start: float
    end: float
    step: float
    scrape: float

    @property
    def built_in(self) -> dict[str, str]:
        """Grafana's own variables of time."""
        rate = max(self.step + self.scrape, 4 * self.scrape)
        return {
            "__rate_interval": f"{round(rate * 1000)}ms",
            "__interval": f"{round(self.step * 1000)}ms",
            "__range": f"{round((self.end - self.start) * 1000)}ms",
        }


def substitute(text: str, values: Mapping[str, str]) -> str:
    """A text with every variable replaced. Raises ConfigError for one that has no value."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in values:
            raise ConfigError(f"The dashboard names a variable ${name} that it does not define.")
        return values[name]

    return VARIABLE.sub(value, text)


def resolve(
    dashboard: dict[str, Any], window: Window, given: Mapping[str, str], ask: Callable[[str, str], list[str]]
) -> dict[str, str]:
    """Values of all variables, in order. ask(selector, label): values of a label, sorted.

    Those that allow several stand for all of them unless ``given``; the others take their first value.
    """
    values = window.built_in
    for variable in dashboard["templating"]["list"]:
        name, query = variable["name"], variable.get("query")
        if name in given:
            values[name] = given[name]
        elif variable["type"] == "query":
            found = LABEL_VALUES.match(substitute(str(query), values))
            if found is None:
                raise ConfigError(f"The variable ${name} is not a label_values() query: {query}.")
            known = ask(found["selector"], found["label"])
            if variable.get("sort") == 2:  # alphabetical, descending
                known = known[::-1]
            values[name] = variable["allValue"] if variable.get("includeAll") else (known or [""])[0]
        else:
            values[name] = str(query)
    return values


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel, ready to run."""

    expr: str
    legend: str
    instant: bool
    heatmap: bool


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels, rows left out."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel


def targets(panel: dict[str, Any], values: Mapping[str, str]) -> list[Target]:
    """The queries of a panel."""
    return [
        Target(
            substitute(target["expr"], values),
            target.get("legendFormat", ""),
            bool(target.get("instant")),
            target.get("format") == "heatmap",
        )
        for target in panel["targets"]
    ]


def legend(template: str, labels: Mapping[str, str]) -> str:
    """The name of a series, from labels in double braces."""
    if not template:
        return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()) if key != "__name__")
    return re.sub(r"\{\{ *(\w+) *\}\}", lambda match: labels.get(match[1], ""), template)
