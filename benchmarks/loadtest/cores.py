"""Engine and client on cores of their own, and the client's runs as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sarathi_plugin.telemetry.parquet import read_timelines

if TYPE_CHECKING:
    from pathlib import Path

    from sarathi_plugin.records import RequestTimeline

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[-1]


@dataclass(frozen=True)
class Run:
    """A finished ``sarathi loadtest``."""

    code: int
    summary: dict[str, Any]
    timelines: list[RequestTimeline]


def pinned(core: int, argv: list[str]) -> list[str]:
    """A command line that runs on one core alone."""
    return ["taskset", "--cpu-list", str(core), *argv]


def on(core: int, argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command on one core to its end; its output is kept for when it fails."""
    return subprocess.run(pinned(core, argv), text=True, capture_output=True, check=False)


def loadtest(url: str, out: Path, *args: str) -> Run:
    """Run ``sarathi loadtest`` on the client's core. Raises RuntimeError when it leaves no results."""
    argv = [sys.executable, "-m", "sarathi_plugin.cli", "loadtest", url, "--out", str(out), *args]
    done = on(CLIENT_CORE, argv)
    if not (out / "summary.json").is_file():
        raise RuntimeError(f"no results: {done.stdout}{done.stderr}")
    summary = json.loads((out / "summary.json").read_text())
    return Run(done.returncode, summary, read_timelines(out / "timelines.parquet"))
