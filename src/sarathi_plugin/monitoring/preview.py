"""``sarathi dashboards preview``: what Grafana would show, drawn from a Prometheus. Needs matplotlib and requests."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.monitoring import expand, picture
from sarathi_plugin.monitoring.files import dashboards
from sarathi_plugin.monitoring.prom import Prometheus, Series
from sarathi_plugin.outputs import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

POINTS = 240
"""Samples a line has, about; Grafana asks for one per pixel or two."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one query brought: a name and its samples, per series."""

    target: expand.Target
    series: tuple[tuple[str, Series], ...]


def preview(
    url: str, out: Path, minutes: float, given: Iterable[str], say: Callable[[str], None],
    now: Callable[[], float] = time.time,
) -> None:  # fmt: skip
    """Draw every dashboard into ``out`` as NAME.png. Raises ConfigError, also when there is nothing to draw."""
    prometheus = Prometheus(url)
    chosen = assignments(given)
    window = make_window(prometheus, minutes, now())
    if not prometheus.label_values("model_name", "sarathi_build_info", window.start, window.end):
        raise ConfigError(
            f"The Prometheus at {prometheus.url} has no sarathi_ series of the last {minutes:g} minutes: does it "
            "scrape a server that runs with --scheduler?"
        )
    boards = dashboards()
    known = {variable["name"] for board in boards.values() for variable in board["templating"]["list"]}
    if unknown := sorted(set(chosen) - known):
        raise ConfigError(
            f"No dashboard has a variable {unknown[0]!r}; there are {', '.join(sorted(known))}."
        )
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, board in boards.items():
            path = out / f"{name}.png"
            draw(prometheus, board, window, chosen, path)
            say(f"wrote {path}")


def assignments(given: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE words as a mapping. Raises ConfigError."""
    found = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise ConfigError(f"Give a variable as NAME=VALUE, not {word!r}.")
        found[name] = value
    return found


def make_window(prometheus: Prometheus, minutes: float, end: float) -> expand.Window:
    """The last minutes, in about ``POINTS`` steps that are no shorter than a scrape."""
    scrape = prometheus.scrape_interval()
    step = max(scrape, minutes * 60 / POINTS)
    return expand.Window(end - minutes * 60, end, step, scrape)


def draw(
    prometheus: Prometheus, board: dict[str, Any], window: expand.Window, given: Mapping[str, str], path: Path
) -> None:
    """One dashboard as one picture."""

    def ask(selector: str, label: str) -> list[str]:
        return prometheus.label_values(label, selector, window.start, window.end)

    values = expand.resolve(board, window, given, ask)
    contents = [(panel, answers(prometheus, panel, values, window)) for panel in expand.panels(board)]
    picture.draw(
        path, board, contents, window, marks(prometheus, board, values, window), shown(board, values)
    )


def answers(
    prometheus: Prometheus, panel: dict[str, Any], values: Mapping[str, str], window: expand.Window
) -> list[Found]:
    """What the queries of a panel bring."""
    found = []
    for target in expand.targets(panel, values):
        if target.instant:
            series = prometheus.instant(target.expr, window.end)
        else:
            series = prometheus.over(target.expr, window.start, window.end, window.step)
        named = [(expand.legend(target.legend, one.labels), one) for one in series if one.samples]
        found.append(Found(target, tuple(named)))
    return found


def marks(
    prometheus: Prometheus, board: dict[str, Any], values: Mapping[str, str], window: expand.Window
) -> list[float]:
    """Times of annotations whose value is their time, Unix seconds."""
    found = set()
    for annotation in board["annotations"]["list"]:
        expr = expand.substitute(annotation["expr"], values)
        for series in prometheus.over(expr, window.start, window.end, window.step):
            found |= {value / 1000 for _, value in series.samples}
    return sorted(moment for moment in found if window.start <= moment <= window.end)


def shown(board: dict[str, Any], values: Mapping[str, str]) -> str:
    """The variables a viewer would see above the panels."""
    parts = []
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            value = values[variable["name"]]
            parts.append(f"{variable['label']}: {'All' if value == '.*' else value}")
    return "    ".join(parts)
