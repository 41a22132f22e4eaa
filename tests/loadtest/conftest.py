"""The scripted server and the command, each in a process of its own: Locust makes sockets cooperative for all that
runs beside it, and pytest must not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from sarathi_plugin.telemetry.parquet import read_timelines

LOCUSTFILE = Path(__file__).parents[2] / "loadtests" / "locustfile.py"
SARATHI = (sys.executable, "-m", "sarathi_plugin.cli")


@dataclass
class Scripted:
    url: str
    pid: int

    def log(self) -> dict[str, dict]:
        """What was received and sent, by digest of the prompt."""
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{self.url}/log", timeout=30).json()


@pytest.fixture
def scripted():
    running = []

    def start(*args: str) -> Scripted:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "scripted.py"), *args],
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return Scripted(f"http://127.0.0.1:{process.stdout.readline().strip()}", process.pid)

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


@dataclass
class Run:
    code: int
    output: str
    out: Path

    @property
    def summary(self) -> dict:
        return json.loads((self.out / "summary.json").read_text())

    @property
    def timelines(self):
        return read_timelines(self.out / "timelines.parquet")


@pytest.fixture
def command(tmp_path):
    """Start ``sarathi loadtest``: returns the process and where its results go."""
    running = []

    def start(url: str, *args: str, name: str = "out") -> tuple[subprocess.Popen, Path]:
        out = tmp_path / name
        process = subprocess.Popen(
            [*SARATHI, "loadtest", url, "--out", str(out), *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        running.append(process)
        return process, out

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def loadtest(command):
    """Run ``sarathi loadtest`` to its end."""

    def run(url: str, *args: str, name: str = "out", timeout: float = 120) -> Run:
        process, out = command(url, *args, name=name)
        output, _ = process.communicate(timeout=timeout)
        return Run(process.returncode, output, out)

    return run


@pytest.fixture
def workload_file(tmp_path):
    """Short chats: a few dozen tokens, so that runs are short."""
    path = tmp_path / "short.yaml"
    path.write_text("kind: sharegpt-like\nprompt_scale: 0.02\noutput_scale: 0.03\n")
    return str(path)


@pytest.fixture
def locust(tmp_path):
    """Start ``locust -f loadtests/locustfile.py``. first: code that the process runs before Locust."""
    running = []

    def start(*args: str, first: str = "", locustfile: Path = LOCUSTFILE, **env: str) -> subprocess.Popen:
        code = f"import sys, time\n{first}\nfrom locust.main import main\nmain()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, "-f", str(locustfile), *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "200", **env},
            cwd=tmp_path,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
