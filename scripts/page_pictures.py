"""Pictures of the live page of a running server: themes, widths, and what a viewer does with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from scripts.browser import chromium, look_like, text, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from selenium.webdriver import Chrome

LOOKS = (("light", 1280, "light"), ("dark", 1280, "dark"), ("narrow", 400, "light"))
SETTLE_S = 2
"""Until the charts have drawn themselves at a new width."""


def picture(browser: Chrome, path: Path) -> None:
    """The whole page as it is now."""
    browser.save_screenshot(str(path))
    print(f"drew {path}")


def whole_page(browser: Chrome, width: int, theme: str) -> None:
    """A window as high as the page."""
    look_like(browser, width, theme)
    time.sleep(SETTLE_S)
    height = int(browser.execute_script("return document.documentElement.scrollHeight"))
    look_like(browser, width, theme, height)
    time.sleep(SETTLE_S)


def take(url: str, out: Path, slo_class: str) -> None:
    """Light, dark and narrow; one class chosen, one request open, paused. While the server is under load."""
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    with chromium() as browser:
        browser.get(f"{url}/sarathi")
        wait_for(lambda: text(browser, "#classes article"), "the page")
        wait_for(lambda: text(browser, "#requests button"), "a request")
        for name, width, theme in LOOKS:
            whole_page(browser, width, theme)
            picture(browser, out / f"page-{name}.png")
        look_like(browser, 1280, "light")
        Select(browser.find_element("id", "slo-class")).select_by_value(slo_class)
        wait_for(lambda: text(browser, "article h2").startswith(slo_class), "one class")
        time.sleep(SETTLE_S)
        picture(browser, out / "page-class.png")
        browser.find_element("id", "pause").send_keys(Keys.SPACE)
        wait_for(lambda: text(browser, "#state") == "paused", "the pause")
        browser.find_element("css selector", "#requests button").send_keys(Keys.ENTER)
        wait_for(lambda: text(browser, "#request-facts"), "the request")
        time.sleep(SETTLE_S)
        picture(browser, out / "page-request.png")


def take_stall(url: str, path: Path) -> None:
    """The page while streams stand still, some seconds into it."""
    with chromium() as browser:
        browser.get(f"{url}/sarathi")
        wait_for(lambda: text(browser, "#state").startswith("stall"), "a stall", 60)
        time.sleep(5)
        look_like(browser, 1280, "light")
        time.sleep(SETTLE_S)
        picture(browser, path)
