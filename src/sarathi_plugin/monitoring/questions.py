"""Every query that is asked anywhere: panels, variables, restarts, alerts, rules; and those without an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.monitoring import expand
from sarathi_plugin.monitoring.alerts import ALERTS
from sarathi_plugin.monitoring.files import dashboards
from sarathi_plugin.monitoring.recording import RECORDINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sarathi_plugin.monitoring.expand import Window
    from sarathi_plugin.monitoring.prom import Prometheus


@dataclass(frozen=True, slots=True)
class Question:
    """One query. where: who asks it. silent: an empty answer is right (an alert that does not fire)."""

    where: str
    expr: str
    silent: bool = False


def rule_questions() -> Iterator[Question]:
    """Alerts (each value that they compare, and the whole) and recording rules (expression and recorded series)."""
    for alert in ALERTS:
        yield Question(alert.name, alert.expr, silent=True)
        for condition in alert.conditions:
            yield Question(f"{alert.name}, compared value", condition.value)
    for rules in RECORDINGS.values():
        for rule in rules:
            yield Question(f"rule for {rule.record}", rule.expr)
            yield Question("recorded", rule.record)


def dashboard_questions(prometheus: Prometheus, window: Window) -> Iterator[Question]:
    """Panels and restarts, with the values that the variables have now. Variables without any value count too."""

    def ask(selector: str, label: str) -> list[str]:
        return prometheus.label_values(label, selector, window.start, window.end)

    for name, board in dashboards().items():
        values = expand.resolve(board, window, {}, ask)
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                found = expand.LABEL_VALUES.match(expand.substitute(variable["query"], values))
                yield Question(f"{name}, variable {variable['name']}", found["selector"] if found else "")
        for annotation in board["annotations"]["list"]:
            yield Question(f"{name}, {annotation['name']}", expand.substitute(annotation["expr"], values))
        for panel in expand.panels(board):
            for target in expand.targets(panel, values):
                yield Question(f"{name}, {panel['title']}", target.expr)


def unanswered(prometheus: Prometheus, window: Window) -> tuple[int, list[Question]]:
    """How many questions there are, and those without any sample in the window. Raises ConfigError for a bad query."""
    asked = [*rule_questions(), *dashboard_questions(prometheus, window)]
    empty = []
    for question in asked:
        found = prometheus.over(question.expr, window.start, window.end, window.step)
        if not question.silent and not any(series.samples for series in found):
            empty.append(question)
    return len(asked), empty
