"""Real servers for the tests in this folder, and what is needed to look at them."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from sarathi_plugin.demo import tiny
from sarathi_plugin.load.server import RunningServer, ServerSpec, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ARGS = (
    "--load-format", "dummy", "--dtype", "float32", "--enforce-eager", "--max-model-len", "8192",
    "--max-num-seqs", "64", "--no-enable-prefix-caching",
)  # fmt: skip
MODEL = "tiny"


@contextlib.contextmanager
def tiny_server(folder: Path, *args: str, env: dict[str, str] | None = None) -> Iterator[RunningServer]:
    """``vllm serve`` with the tiny model."""
    model = folder / "model"
    if not model.exists():
        model.mkdir()
        tiny.write(model)
    spec = ServerSpec(
        str(model),
        MODEL,
        folder / "server.log",
        (*ARGS, *args),
        {"VLLM_CPU_KVCACHE_SPACE": "1", **(env or {})},
    )
    with serve(spec) as server:
        yield server


def install_package(source: Path, target: Path) -> None:
    """``pip install --no-deps --target``: no second vLLM, and nothing left in the environment."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", target, source],
        check=True,
    )  # fmt: skip


def install_plugin(
    target: Path, name: str, code: str, *, group: str = "sarathi_plugin", call: str = ""
) -> None:
    """A plugin as a package manager would leave it: a module and its entry point. call: a name in the module."""
    module = f"sarathi_test_{name}"
    target.mkdir(exist_ok=True)
    (target / f"{module}.py").write_text(code)
    info = target / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}{':' + call if call else ''}\n")


STALL = '''
"""Stops the engine once, when a file appears."""
import pathlib, time
from sarathi_plugin.hookspecs import hookimpl

@hookimpl
def engine_started(info):
    global FILE
    FILE = pathlib.Path(info.plugin_settings["stall"]["file"])

@hookimpl
def observe_step(record):
    if FILE.exists() and record.shape.decode_rows >= STREAMS:
        FILE.unlink()
        time.sleep(SECONDS)
'''


@contextlib.contextmanager
def stalling_server(
    folder: Path,
    policy: str,
    seconds: float,
    *args: str,
    streams: int = 3,
    env: dict[str, str] | None = None,
) -> Iterator[RunningServer]:
    """A server that stands still for so long once the file ``stall`` is in its folder and so many streams run."""
    site, settings = folder / "site", folder / "sarathi.yaml"
    install_plugin(site, "stall", STALL.replace("SECONDS", str(seconds)).replace("STREAMS", str(streams)))
    settings.write_text(
        f"plugins: [stall]\nplugin_settings: {{stall: {{file: {folder}/stall}}}}\n"
        "classes: {strict: {tbt_ms: 2, ttft_slack_ms: 0}}  # faster than the engine: no stream can bank slack\n"
    )
    ours = ("--scheduler", policy, "--sarathi-config", str(settings))
    with tiny_server(folder, *ours, *args, env={"PYTHONPATH": str(site), **(env or {})}) as server:
        yield server


SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")


class Metrics:
    """One scrape of ``/metrics``."""

    def __init__(self, url: str) -> None:
        with requests.Session() as session:
            session.trust_env = False
            text = session.get(f"{url}/metrics", timeout=30).text
        self.samples: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for line in text.splitlines():
            match = SAMPLE.match(line)
            if match:
                labels = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"] or ""))
                self.samples[match["name"]].append((labels, float(match["value"])))

    def total(self, name: str, **labels: str) -> float:
        """Sum over the series that carry these labels."""
        return sum(
            value
            for found, value in self.samples.get(name, ())
            if all(found.get(key) == wanted for key, wanted in labels.items())
        )
