"""The generated dashboards: complete, laid out without overlap, nothing in them that nobody exports."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from sarathi_plugin.monitoring import names
from sarathi_plugin.monitoring.alerts import ALERTS
from sarathi_plugin.monitoring.expand import LABEL_VALUES, panels
from sarathi_plugin.monitoring.files import dashboards
from sarathi_plugin.monitoring.recording import RECORDED, RECORDINGS
from sarathi_plugin.telemetry.catalogue import CATALOGUE

BOARDS = dashboards()
RUNBOOKS = Path(__file__).parents[3] / "docs" / "runbooks.md"
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())


@each_board
def test_panels_fill_the_grid_without_overlap(board):
    cells = [
        (x, y)
        for panel in board["panels"]
        for x, y in itertools.product(
            range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"]),
            range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"]),
        )
    ]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))


@each_board
def test_panels_say_what_they_show(board):
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)
    for panel in panels(board):
        assert panel["description"].endswith(".")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        if panel["type"] == "timeseries":
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["fieldConfig"]["defaults"]["custom"]["axisLabel"]


@each_board
def test_variables_restarts_and_links(board):
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert {"datasource", "model", "engine", "class", "docs"} <= set(variables)
    (restart,) = board["annotations"]["list"]
    assert "sarathi_start_time_seconds" in restart["expr"]
    assert restart["useValueForTime"]
    assert any(link["url"] == "${docs}/runbooks.md" for link in board["links"] if link["type"] == "link")
    anchors = {f"${{docs}}/runbooks.md#{alert.anchor}" for alert in ALERTS}
    for panel in panels(board):
        assert {link["url"] for link in panel.get("links", ())} <= anchors


@each_board
def test_every_series_is_exported_or_recorded(board):
    exprs = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    exprs += [annotation["expr"] for annotation in board["annotations"]["list"]]
    exprs += [v["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    for expr in exprs:
        assert names.used(expr), expr
        names.checked(expr, RECORDED)


@each_board
def test_every_variable_of_values_can_be_resolved_by_us(board):
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            assert LABEL_VALUES.match(variable["query"])


def test_every_metric_of_the_catalogue_is_shown_somewhere():
    text = json.dumps(BOARDS) + " ".join(alert.expr for alert in ALERTS)
    text += " ".join(rule.expr for rules in RECORDINGS.values() for rule in rules)
    missing = {metric.full_name for metric in CATALOGUE if metric.full_name not in text}
    assert missing == {
        "sarathi_request_fluidity_index"
    }  # its share above 0.9 is sarathi_fluid_requests_total


def test_both_arms_of_the_comparison_have_the_same_panels():
    titles = {panel["title"] for panel in panels(BOARDS["compare"])}
    assert {title[3:] for title in titles if title.startswith("A: ")} == {
        title[3:] for title in titles if title.startswith("B: ")
    }
    left = {
        panel["title"][3:]: panel for panel in panels(BOARDS["compare"]) if panel["title"].startswith("A: ")
    }
    for panel in panels(BOARDS["compare"]):
        if panel["title"].startswith("B: "):
            own = [target["expr"].replace("$arm_b", "$arm_a") for target in panel["targets"]]
            assert own == [target["expr"] for target in left[panel["title"][3:]]["targets"]]


def test_runbooks_name_panels_as_they_are_called():
    text = " ".join(RUNBOOKS.read_text(encoding="utf-8").split())
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]*)\*(?!\*)", text))
    titles = {panel["title"] for board in BOARDS.values() for panel in panels(board)}
    boards = {board["title"].removeprefix("Sarathi: ") for board in BOARDS.values()}
    assert named - titles - boards == {"Status, Targets"}, "the last is a page of Prometheus"
