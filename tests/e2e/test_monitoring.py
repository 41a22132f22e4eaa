"""Every query of every panel, variable and alert, against a real Prometheus that scrapes a real server under load.

The server's engine is stopped once for some seconds, with streams open: the open-stall alert fires while it lasts.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import requests

from sarathi_plugin.load.dispatch import run_open_loop
from sarathi_plugin.monitoring import files, names, preview, questions
from sarathi_plugin.monitoring.alerts import ALERTS
from sarathi_plugin.workload.model import Workload
from scripts.monitoring_live import Scraper, make_client, request, running_prometheus
from tests.e2e.support import stalling_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sarathi_plugin.load.server import RunningServer
    from sarathi_plugin.monitoring.expand import Window
    from sarathi_plugin.monitoring.prom import Prometheus

pytestmark = [pytest.mark.vllm, pytest.mark.server, pytest.mark.prometheus, pytest.mark.slow]

STALL_S = 9
SECONDS = 12


class Scene(NamedTuple):
    """What has been scraped, and what fired."""

    prometheus: Prometheus
    window: Window
    alerts: list[dict[str, Any]]
    log: Path


def get(url: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=60)


def put_under_load(scraper: Scraper, server: RunningServer, stall: Path) -> None:
    """All classes, a document, and three streams of a class that is always late while the engine stands still."""
    rng = np.random.default_rng(0)
    slo = ("interactive", "standard", "batch")
    chats = [request(f"r{i}", 0.4 * i, 40, 12, slo[i % 3], rng) for i in range(round(SECONDS / 0.4))]
    document = request("document", 3, 2500, 8, "standard", rng)
    # Long enough to be open still when the engine stops: observers see steps up to a quarter of a second late.
    streams = [request(f"s{i}", SECONDS - 2, 20, 1500, "strict", rng) for i in range(3)]
    timer = threading.Timer(SECONDS - 2, stall.touch)
    timer.start()
    client = make_client(server)
    result = run_open_loop(Workload.ordered("w", [*chats, document, *streams]), client.send)
    timer.join()
    assert {timeline.status for timeline in result.timelines} == {"finished"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One server and one Prometheus for all tests here."""
    folder = tmp_path_factory.mktemp("monitoring")
    with (
        stalling_server(folder, "sarathi", STALL_S) as server,
        running_prometheus(folder) as scraper,
    ):
        start = time.time()
        scraper.scrape(server.url.removeprefix("http://"))
        time.sleep(2)
        put_under_load(scraper, server, folder / "stall")
        time.sleep(2)
        end = time.time()
        window = preview.make_window(scraper.prometheus, (end - start) / 60, end)
        alerts = get(f"{scraper.prometheus.url}/api/v1/alerts").json()["data"]["alerts"]
        yield Scene(scraper.prometheus, window, alerts, folder / "prometheus.log")


def test_every_query_of_every_panel_variable_rule_and_alert_has_an_answer(scene: Scene) -> None:
    asked, empty = questions.unanswered(scene.prometheus, scene.window)
    assert [f"{question.where}: {question.expr}" for question in empty] == []
    panels = sum(len(panel.get("targets", ())) for b in files.dashboards().values() for panel in b["panels"])
    assert asked > panels + 2 * len(ALERTS)


def test_a_query_without_an_answer_would_be_found(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = [questions.Question("test", "sarathi_renamed_total"), questions.Question("fine", "up")]
    monkeypatch.setattr(questions, "rule_questions", lambda: lost)
    _, empty = questions.unanswered(scene.prometheus, scene.window)
    assert [question.where for question in empty] == ["test"]


def test_the_server_exports_every_series_that_is_used(scene: Scene) -> None:
    """Ours and vLLM's, under the golden names."""
    exported = set(
        scene.prometheus.label_values("__name__", '{job="vllm"}', scene.window.start, scene.window.end)
    )
    assert names.exported() - exported == set()


def test_the_open_stall_alert_fired_and_its_runbook_is_served(scene: Scene) -> None:
    expr = 'ALERTS{alertname="SarathiOpenStall", alertstate="firing"}'
    found = scene.prometheus.over(expr, scene.window.start, scene.window.end, 1)
    assert "strict" in {series.labels["slo_class"] for series in found}
    alert = next(one for one in scene.alerts if one["labels"]["alertname"] == "SarathiOpenStall")
    url, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert url.endswith("/user/runbooks.md")
    # Prometheus calls itself by the host's name; here it listens on loopback.
    page = get(scene.prometheus.url + "/user/runbooks.md")
    assert page.status_code == 200
    assert f"## {anchor}" in page.text.lower()


def test_nothing_else_of_ours_fired(scene: Scene) -> None:
    found = scene.prometheus.over("ALERTS", scene.window.start, scene.window.end, 1)
    allowed = {"SarathiOpenStall", "SarathiFluidityBurnFast", "SarathiFluidityBurnSlow", "SarathiScrapeGone"}
    firing = {one.labels["alertname"] for one in found if one.labels["alertstate"] == "firing"}
    assert firing <= allowed


def test_every_dashboard_is_drawn(scene: Scene, tmp_path: Path) -> None:
    said: list[str] = []
    minutes = (scene.window.end - scene.window.start) / 60
    preview.preview(scene.prometheus.url, tmp_path, minutes, [], said.append, now=lambda: scene.window.end)
    assert {path.name for path in tmp_path.iterdir()} == {"fluidity.png", "scheduler.png", "compare.png"}
    assert all(path.stat().st_size > 20_000 for path in tmp_path.iterdir())
    assert len(said) == 3


def test_prometheus_had_nothing_to_complain_of(scene: Scene) -> None:
    lines = scene.log.read_text().splitlines()
    bad = [line for line in lines if "level=error" in line or "level=warn" in line]
    assert bad == []
