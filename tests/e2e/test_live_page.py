"""The live page of a real server with two API servers and an API key, in a real browser."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
import requests
from typer.testing import CliRunner

from sarathi_plugin.cli import app
from sarathi_plugin.engine.serve import allow_list
from scripts.browser import chromium, look_like, text, wait_for
from tests.e2e.support import MODEL, Metrics, stalling_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

    from sarathi_plugin.load.server import RunningServer

pytestmark = [pytest.mark.vllm, pytest.mark.server, pytest.mark.chromium]

KEY = "sk-page-test"
STALL_S = 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the page, two API servers, a key, and a plugin that can stop its engine for ten seconds."""
    folder = tmp_path_factory.mktemp("page")
    env = {"VLLM_PLUGINS": allow_list(os.environ.get("VLLM_PLUGINS")), "VLLM_API_KEY": KEY}
    with stalling_server(folder, "prefill-first", STALL_S, "--api-server-count", "2", env=env) as running:
        yield running


@pytest.fixture
def browser() -> Iterator[Chrome]:
    with chromium() as driver:
        look_like(driver, 1280, "light")
        yield driver


def sign_in(browser: Chrome, server: RunningServer) -> None:
    browser.get(f"{server.url}/sarathi")
    browser.find_element("id", "key").send_keys(KEY + "\n")
    wait_for(lambda: text(browser, "#classes article"), "the page")


def document(server: RunningServer, key: str | None = KEY, **query: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return session.get(f"{server.url}/sarathi/api", headers=headers, params=query, timeout=30)


def stream(server: RunningServer, slo_class: str, tokens: int) -> None:
    """One streamed request, to its end."""
    body = {
        "model": MODEL, "prompt": list(range(20, 60)), "max_tokens": tokens, "ignore_eos": True, "stream": True,
        "vllm_xargs": {"slo_class": slo_class},
    }  # fmt: skip
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {KEY}"
        with session.post(f"{server.url}/v1/completions", json=body, stream=True, timeout=300) as answer:
            assert answer.status_code == 200
            for _ in answer.iter_content(1024):
                pass


@contextlib.contextmanager
def traffic(server: RunningServer, streams: dict[str, int], tokens: int) -> Iterator[None]:
    """Streams by class, open for the length of the block or until they have all their tokens."""
    threads = [
        threading.Thread(target=stream, args=(server, name, tokens), daemon=True)
        for name, count in streams.items()
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def counted(metrics: Metrics, name: str) -> tuple[float, float]:
    return (
        metrics.total("sarathi_deadlines_met_total", slo_class=name),
        metrics.total("sarathi_deadlines_missed_total", slo_class=name),
    )


def test_a_stall_shows_on_the_page_and_in_metrics_while_it_lasts(
    server: RunningServer, browser: Chrome
) -> None:
    folder = server.log.parent
    assert document(server, None).status_code == 401
    assert document(server, "wrong").status_code == 401
    sign_in(browser, server)
    assert KEY not in browser.current_url
    assert text(browser, "#state") == "live"
    assert text(browser, "#no-requests") == "No request yet."
    # So many tokens that no machine is done with them before the engine stalls.
    with traffic(server, {"strict": 3, "standard": 1}, 3000):
        wait_for(lambda: document(server).json()["classes"][-1]["missed"], "the first tokens")
        (folder / "stall").touch()
        wait_for(lambda: not (folder / "stall").exists(), "the stall")
        wait_for(lambda: text(browser, "#state").startswith("stall"), "the stall on the page")
        strict = document(server, slo_class="strict").json()["classes"][0]["overdue"]
        assert strict["streams"] == 3
        assert strict["oldest_stream_s"] < 2
        wait_for(lambda: document(server).json()["classes"][-1]["overdue"]["oldest_stream_s"] > 4, "its age")
        metrics = Metrics(server.url)
        assert metrics.total("sarathi_requests_overdue", slo_class="strict") == 3
        assert metrics.total("sarathi_oldest_overdue_seconds", slo_class="strict") > 3.5
        assert "3 streams overdue" in text(browser, 'article[data-class="strict"]')
    wait_for(lambda: text(browser, "#state") == "live", "its end")
    time.sleep(1)
    metrics = Metrics(server.url)
    for _ in range(4):  # whichever API server answers
        for found in document(server).json()["classes"]:
            assert counted(metrics, found["name"]) == (found["met"], found["missed"])
    (strict, *_) = document(server, slo_class="strict").json()["classes"]
    met, missed = counted(metrics, "strict")
    assert strict["fluidity"]["since_start"] == pytest.approx(met / (met + missed), abs=0.01)
    assert f"start {met / (met + missed):.3f}" in text(browser, 'article[data-class="strict"]')
    assert not [entry["message"] for entry in browser.get_log("browser") if "401" not in entry["message"]]
    log = server.log.read_text()
    assert re.search(r'GET /sarathi/api HTTP/1.1" 401', log)
    assert not re.search(r'GET /sarathi/api\S* HTTP/1.1" 200', log)  # a line a second would bury the others


@pytest.mark.slow
def test_a_viewer_chooses_pauses_opens_and_loses_the_server(server: RunningServer, browser: Chrome) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    folder = server.log.parent
    sign_in(browser, server)
    with traffic(server, {"interactive": 2, "batch": 2}, 800):
        wait_for(lambda: document(server).json()["requests"], "requests")
        for width, theme in ((1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")):
            look_like(browser, width, theme)
            time.sleep(2)
            browser.save_screenshot(str(folder / f"page-{width}-{theme}.png"))
            assert browser.execute_script("return document.documentElement.scrollWidth") == width
            background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert background == {"light": "rgb(244, 245, 247)", "dark": "rgb(20, 23, 27)"}[theme]
        look_like(browser, 1280, "light")
        Select(browser.find_element("id", "slo-class")).select_by_value("batch")
        wait_for(
            lambda: browser.execute_script("return document.querySelectorAll('article').length") == 1,
            "one class",
        )
        assert text(browser, "article h2").startswith("batch")
        assert "interactive" not in text(browser, "#requests")
        button = browser.find_element("css selector", "#requests button")
        button.send_keys(Keys.ENTER)
        wait_for(lambda: "batch" in text(browser, "#request-facts"), "the request")
        wait_for(lambda: "longest" in text(browser, "#gaps-sum"), "its gaps")
        browser.switch_to.active_element.send_keys(Keys.ESCAPE)
        wait_for(
            lambda: not browser.execute_script("return document.getElementById('request').open"), "closing it"
        )
    browser.find_element("id", "pause").send_keys(Keys.SPACE)
    wait_for(lambda: text(browser, "#state") == "paused", "the pause")
    before = text(browser, "main")
    with traffic(server, {"batch": 1}, 50):  # something to show, whatever the pace of the machine
        pass
    assert text(browser, "main") == before
    assert text(browser, "#notice").startswith("Paused at")
    browser.find_element("id", "pause").send_keys(Keys.SPACE)
    wait_for(lambda: text(browser, "#state") == "live", "going on")
    wait_for(lambda: text(browser, "main") != before, "new figures")
    done = CliRunner(env={"VLLM_API_KEY": KEY, "COLUMNS": "140"}).invoke(app, ["top", server.url, "--once"])
    assert done.exit_code == 0, done.output
    assert "interactive" in done.output
    os.killpg(server.pid, signal.SIGKILL)
    wait_for(lambda: text(browser, "#state") == "not live", "the loss")
    assert "is not live" in text(browser, "#notice")
    assert browser.execute_script("return document.body.classList.contains('old')")
    done = CliRunner(env={"VLLM_API_KEY": KEY}).invoke(app, ["top", server.url, "--once"])
    assert done.exit_code == 1
    assert "No answer" in done.output
