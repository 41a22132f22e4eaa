"""The tab in Locust's web UI, in a real browser. SARATHI_PICTURES names a folder that keeps the picture."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sarathi_plugin.load.server import free_port
from tests.e2e.test_live_page import chromium, look_like, text, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.chromium]

CARDS = "#sarathi-tab .cards"
LINES = "return document.querySelectorAll('#sarathi-tab .js-plotly-plot .trace').length"
ACTIVE = "return document.querySelector('[role=tab][aria-selected=true]').innerText"
ELSEWHERE = """
return performance.getEntriesByType("resource").map((r) => r.name).filter((n) => !n.startsWith(location.origin))
"""


@pytest.fixture
def workload(tmp_path):
    """Chats and documents, small."""
    path = tmp_path / "mixed.yaml"
    path.write_text("kind: mixed-classes\nprompt_scale: 0.02\noutput_scale: 0.05\n")
    return str(path)


def test_the_tab_shows_figures_and_charts_while_a_run_lasts(scripted, locust, workload, tmp_path):
    server = scripted("--interval-ms", "40", "--script", ",".join(["ok"] * 24 + ["reset"]))
    port = free_port()
    process = locust(
        "--autostart", "--web-port", str(port), "--host", server.url, "--workload", workload, "--rate", "8",
        "--duration", "40s", "--tbt-ms", "38", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    with chromium() as browser:
        look_like(browser, 1280, "light")
        wait_for(server.log, "the first request", 60)
        browser.get(f"http://127.0.0.1:{port}/?tab=fluidity")
        wait_for(lambda: text(browser, CARDS), "figures")
        assert browser.execute_script(ACTIVE).upper() == "FLUIDITY"
        wait_for(lambda: browser.execute_script(LINES) >= 8, "charts")
        shown = text(browser, "#sarathi-tab")
        for word in (
            "fluidity-index",
            "fluid requests",
            "within SLO",
            "TBT P50 / P99",
            "TTFT P50 / P99",
            "stalls",
        ):
            assert word in shown
        wait_for(lambda: "batch" in text(browser, "#sarathi-tab tbody"), "both classes")
        before = text(browser, ".how")
        wait_for(lambda: text(browser, ".how") != before, "newer figures")
        wait_for(lambda: "reset" in text(browser, ".how"), "failures by kind", 60)
        wait_for(lambda: int(text(browser, ".how").split(" ")[0]) > 170, "most of the run", 60)
        save(browser, tmp_path)
        click_tab(browser, "STATISTICS")
        wait_for(lambda: not visible(browser), "another tab")
        click_tab(browser, "FLUIDITY")
        wait_for(lambda: visible(browser), "the tab again")
        wait_for(lambda: "nothing is running" in text(browser, ".how"), "the end of the run", 90)
        assert browser.execute_script(ELSEWHERE) == []
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (tmp_path / "out" / "report.html").is_file(), output


def click_tab(browser, name):
    browser.execute_script(
        "[...document.querySelectorAll('[role=tab]')].find((t) => t.innerText.toUpperCase() === arguments[0]).click()",
        name,
    )


def visible(browser):
    return browser.execute_script("return document.querySelector('#sarathi-tab')?.offsetParent != null")


def save(browser, tmp_path):
    folder = Path(os.environ.get("SARATHI_PICTURES", tmp_path))
    browser.set_window_size(1280, 1180)
    look_like(browser, 1280, "light")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 1280, "height": 1060, "deviceScaleFactor": 1, "mobile": False},
    )
    wait_for(lambda: browser.execute_script(LINES) >= 8, "charts")
    assert browser.save_screenshot(str(folder / "loadtest-tab.png"))
