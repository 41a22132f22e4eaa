"""The tab "Fluidity" of Locust's web UI during a load test of a real server, as a picture.

    PYTHONPATH=. python scripts/loadtest_picture.py [--out docs/pictures/loadtest-tab.png]

Serves the tiny model with ``--scheduler sarathi``, runs ``sarathi loadtest`` with --web-port, and needs Chromium.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from sarathi_plugin.load.server import free_port
from tests.e2e.support import tiny_server
from tests.e2e.test_live_page import chromium, look_like, text, wait_for

WORKLOAD = "kind: mixed-classes\nprompt_scale: 0.1\noutput_scale: 0.2\n"


def main() -> None:
    """Serve, send, look."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/loadtest-tab.png"))
    parser.add_argument("--rate", default="3")
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mixed-classes.yaml").write_text(WORKLOAD)
        with tiny_server(folder, "--scheduler", "sarathi") as server:
            port = free_port()
            argv = [
                sys.executable, "-m", "sarathi_plugin.cli", "loadtest", server.url, "--workload",
                str(folder / "mixed-classes.yaml"), "--rate", options.rate, "--duration", f"{options.seconds}s",
                "--web-port", str(port), "--out", str(folder / "out"),
            ]  # fmt: skip
            process = subprocess.Popen(argv)
            try:
                picture(f"http://127.0.0.1:{port}/?tab=fluidity", options.seconds, options.out)
                process.wait(300)
            finally:
                process.kill()
                process.wait()


def answers(url: str) -> bool:
    """Whether there is somebody at a port."""
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname, parts.port)) == 0


def picture(url: str, seconds: int, out: Path) -> None:
    """Look at the tab shortly before the end."""
    with chromium() as browser:
        look_like(browser, 1280, "light")
        view = {"width": 1280, "height": 1060, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", view)
        wait_for(lambda: answers(url), "the web UI", 120)
        browser.get(url)
        wait_for(lambda: text(browser, "#sarathi-tab .cards"), "the tab", 60)
        time.sleep(seconds - 15)
        browser.save_screenshot(str(out))


if __name__ == "__main__":
    main()
