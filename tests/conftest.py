"""What all tests share: no network, and what happens when something a test needs is not installed.

By default such a test is skipped with the reason; with SARATHI_REQUIRE_TOOLS=1 it fails.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

TOOLS_REQUIRED = os.environ.get("SARATHI_REQUIRE_TOOLS") == "1"
HAVE_VLLM = importlib.util.find_spec("vllm") is not None
NO_VLLM = "vLLM is not installed: make setup"
PROGRAMS = {
    "prometheus": ("prometheus", "promtool"),
    "alertmanager": ("amtool",),
    "chromium": ("chromium", "chromedriver"),
}
"""Programs by the marker of the tests that run them."""


def unavailable(reason: str) -> NoReturn:
    """Skip the running test, or fail it where tools are required."""
    if TOOLS_REQUIRED:
        pytest.fail(f"{reason} (SARATHI_REQUIRE_TOOLS=1)", pytrace=False)
    pytest.skip(reason)


def find_program(name: str) -> Path:
    """Where a program is; without it the running test is skipped or fails."""
    path = shutil.which(name)
    if path is None:
        unavailable(f"{name} is not installed: make system-packages")
    return Path(path)


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], Path]:
    """``require_tool("promtool")``: the path of a program; without it the test is skipped or fails."""
    return find_program


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Markers say what a test needs."""
    if not HAVE_VLLM and (item.get_closest_marker("vllm") or item.get_closest_marker("server")):
        unavailable(NO_VLLM)
    for marker, programs in PROGRAMS.items():
        if item.get_closest_marker(marker):
            for program in programs:
                find_program(program)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """tests/engine imports vLLM at its head, so without it there is nothing to collect."""
    in_engine = collection_path.is_relative_to(Path(__file__).parent / "engine")
    return True if in_engine and not HAVE_VLLM and not TOOLS_REQUIRED else None


def pytest_report_header() -> str | None:
    """Say what is left out."""
    return None if HAVE_VLLM else f"tests/engine and tests marked vllm are left out. {NO_VLLM}"
