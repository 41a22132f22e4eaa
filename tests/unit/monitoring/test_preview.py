"""Pictures of dashboards, and what is said when there is nothing to draw. The live test draws real ones."""

from __future__ import annotations

import itertools
import math
import time

import pytest
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from sarathi_plugin.cli import app
from sarathi_plugin.monitoring import expand, files, picture, preview
from sarathi_plugin.monitoring.prom import Prometheus, Series, _seconds
from tests.unit.monitoring.http import scripted

START = 1_700_000_000.0
WINDOW = expand.Window(START, START + 1800, 7.5, 5)
LABELS = [
    {
        "slo_class": slo,
        "kind": kind,
        "engine": "0",
        "limit": kind,
        "status": kind,
        "tbt_ms": "25",
        "plugin": slo,
    }
    for slo, kind in zip(("interactive", "standard", "batch"), ("decode", "mixed", "prefill"), strict=True)
]


class Synthetic:
    """Answers every query with waves; histograms get buckets. empty: with nothing."""

    url = "http://127.0.0.1:9090"

    def __init__(self, *, empty: bool = False) -> None:
        self.empty = empty
        self.asked: list[str] = []

    def label_values(self, label, selector, start, end):
        return [] if self.empty else ["a", "b"]

    def scrape_interval(self):
        return 5.0

    def over(self, expr, start, end, step):
        self.asked.append(expr)
        if self.empty:
            return []
        moments = [start + step * i for i in range(int((end - start) / step) + 1)]
        if "start_time_seconds" in expr:
            return [Series({}, tuple((moment, (START + 300) * 1000) for moment in moments))]
        if expr.startswith("sum by (le)"):
            return [
                Series({"le": le}, tuple((m, n * (1 + math.sin(m / 200))) for m in moments))
                for n, le in enumerate(("0.1", "0.2", "0.5", "+Inf"))
            ]
        return [
            Series(labels, tuple((m, n + 0.5 + math.sin(m / 100 + n) / 2) for m in moments[: -20 or None]))
            for n, labels in enumerate(LABELS)
        ]

    def instant(self, expr, at=None):
        self.asked.append(expr)
        labels = {"policy": "sarathi", "instance": "a:1", "version": "0.1", "job": "vllm"}
        return [] if self.empty else [Series(labels, ((START, 1.0),))]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    made = []

    def keep(self, *args, **kwargs):
        made.append(self)
        return original(self, *args, **kwargs)

    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", keep)
    return made


@pytest.mark.parametrize("empty", [False, True], ids=["data", "no data"])
@pytest.mark.parametrize("name", files.DASHBOARDS)
def test_panels_do_not_overlap_and_stay_inside(tmp_path, figures, name, empty):
    path = tmp_path / f"{name}.png"
    prometheus = Synthetic(empty=empty)
    preview.draw(prometheus, files.dashboards()[name], WINDOW, {}, path)
    (figure,) = figures
    width, height = figure.get_size_inches() * figure.dpi
    renderer = figure.canvas.get_renderer()
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [text.get_window_extent(renderer) for text in figure.texts]
    for box in boxes:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1
    for one, two in itertools.combinations(boxes, 2):
        assert min(one.x1, two.x1) - max(one.x0, two.x0) < 1 or min(one.y1, two.y1) - max(one.y0, two.y0) < 1
    shown = [text.get_text() for axes in figure.axes for text in axes.texts]
    panels = list(expand.panels(files.dashboards()[name]))
    assert shown.count("no data in this time range") == (len(panels) if empty else 0)
    with Image.open(path) as image:
        assert image.size == (int(width), int(height))


def test_every_query_of_the_dashboard_is_asked(tmp_path):
    prometheus = Synthetic()
    board = files.dashboards()["fluidity"]
    preview.draw(prometheus, board, WINDOW, {"class": "batch"}, tmp_path / "f.png")
    wanted = sum(len(panel["targets"]) for panel in expand.panels(board)) + 1
    assert len(prometheus.asked) == wanted
    assert not any("$" in expr for expr in prometheus.asked)
    assert any('slo_class=~"batch"' in expr for expr in prometheus.asked)


@pytest.mark.parametrize(("names", "columns"), [([], 1), (["a"], 1), (["x" * 10] * 6, 4), (["x" * 200], 1)])
def test_legends_fit(names, columns):
    assert picture.legend_columns(names, 5) == columns


# -- what is said when it cannot be done ---------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, ["dashboards", "preview", "--prometheus", *map(str, arguments)])


def refused(result, *words):
    assert result.exit_code == 2, result.output
    assert all(word in result.stderr for word in words), result.stderr
    assert result.stderr.count("\n") == 1


def nothing(method, path, body):
    if path.endswith("/targets"):
        return 200, {"status": "success", "data": {"activeTargets": []}}
    return 200, {"status": "success", "data": []}


def test_a_prometheus_without_our_series(tmp_path):
    with scripted(nothing) as server:
        refused(run(server.url, "--out", tmp_path / "out"), "no sarathi_ series", "--scheduler")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, "<html>hello</html>"), ["not a Prometheus"]),
        ((404, {"detail": "Not Found"}), ["not a Prometheus", "404"]),
        ((200, [1]), ["not a Prometheus"]),
        (
            (503, {"status": "error", "errorType": "unavailable", "error": "starting"}),
            ["unavailable: starting"],
        ),
    ],
)
def test_something_else_answers(tmp_path, answer, words):
    with scripted(lambda *_: answer) as server:
        refused(run(server.url, "--out", tmp_path), *words)


def test_nobody_answers(tmp_path):
    refused(run("http://127.0.0.1:9", "--out", tmp_path), "does not answer", "127.0.0.1:9")


@pytest.mark.parametrize("url", ["localhost:9090", "http://me:secret@localhost:9090"])
def test_bad_addresses(tmp_path, url):
    result = run(url, "--out", tmp_path)
    refused(result, "http://HOST:PORT")
    assert "secret" not in result.output


def test_bad_variables(tmp_path):
    refused(run("http://127.0.0.1:9", "--out", tmp_path, "--var", "model"), "NAME=VALUE", "'model'")

    def some(method, path, body):
        return (
            (200, {"status": "success", "data": ["m"]})
            if path.endswith("/values")
            else nothing(method, path, body)
        )

    with scripted(some) as server:
        refused(run(server.url, "--out", tmp_path, "--var", "modle=m"), "'modle'", "model")


def test_durations_of_prometheus():
    assert [_seconds(text) for text in ("5s", "1m30s", "500ms", "", "2h")] == [5, 90, 0.5, 0, 7200]


def test_not_a_number_is_no_sample():
    def nan(method, path, body):
        now = time.time()
        result = [{"metric": {"a": "b"}, "values": [[now, "NaN"], [now + 1, "2.5"]]}]
        return 200, {"status": "success", "data": {"resultType": "matrix", "result": result}}

    with scripted(nan) as server:
        (series,) = Prometheus(server.url).over("x", 0, 1, 1)
    assert [value for _, value in series.samples] == [2.5]
