"""Two servers under the same load, scraped by a real Prometheus: every query runs, dashboards and page are drawn.

    python scripts/monitoring_live.py [--out out/monitoring-live] [--seconds 90]

First `sarathi`, then `prefill-first`, which ends with prompts of 12,000 tokens beside open streams: a stall of more
than ten seconds. Needs `vllm`, `prometheus` and `chromium`. Into the folder come pictures, a recording and logs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import requests
import yaml

from sarathi_plugin.config import BUILTIN_CLASSES, load_curve
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.demo import tiny
from sarathi_plugin.engine.serve import allow_list
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.dispatch import run_open_loop
from sarathi_plugin.load.server import RunningServer, ServerSpec, free_port, serve
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.monitoring import files, preview, questions
from sarathi_plugin.monitoring.prom import Prometheus
from sarathi_plugin.workload.arrivals import poisson_arrivals
from sarathi_plugin.workload.model import ScheduledRequest, Workload
from sarathi_plugin.workload.synthetic import random_prompt
from scripts import page_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRAPE = "1s"
PAGE_S = 40
"""Of load while the page is looked at."""

CLASSES = {name: spec.build(name) for name, spec in BUILTIN_CLASSES.items()}
SERVE = (
    "--load-format", "dummy", "--dtype", "float32", "--enforce-eager", "--max-model-len", "14000",
    "--max-num-seqs", "64", "--no-enable-prefix-caching",
)  # fmt: skip
SETTINGS = """\
classes:
  strict: {tbt_ms: 2, ttft_slack_ms: 0}   # no engine is that fast: its streams stall a little all the time
"""


@dataclass(frozen=True)
class Scraper:
    """A Prometheus of ours. targets: a file in which it looks for servers."""

    prometheus: Prometheus
    targets: Path

    def scrape(self, *servers: str) -> None:
        """Scrape these from now on (HOST:PORT)."""
        text = json.dumps([{"targets": list(servers)}])
        part = self.targets.with_suffix(".part")
        part.write_text(text)
        part.rename(self.targets)


@contextlib.contextmanager
def running_prometheus(folder: Path, program: str = "prometheus") -> Iterator[Scraper]:
    """The committed configuration and rules in a real Prometheus; only how often and whom it scrapes is changed."""
    source = files.folder() / "prometheus"
    config = yaml.safe_load((source / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": SCRAPE, "evaluation_interval": SCRAPE}
    config["rule_files"] = [str(source / name) for name in config["rule_files"]]
    del config["alerting"]
    targets = folder / "targets.json"
    (job,) = config["scrape_configs"]
    del job["static_configs"]
    job["file_sd_configs"] = [{"files": [str(targets)], "refresh_interval": "1s"}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    argv = [
        program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}", f"--web.user-assets={source / 'assets'}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        yield Scraper(Prometheus(url), targets)
    finally:
        process.terminate()
        process.wait(20)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until Prometheus answers. Raises RuntimeError when it ended or is not ready in half a minute."""
    for _ in range(150):
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{url}/-/ready", timeout=2).ok:
                return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise RuntimeError("Prometheus did not start; see prometheus.log")


@contextlib.contextmanager
def running_server(folder: Path, policy: str, *more: str) -> Iterator[RunningServer]:
    """A tiny model under a policy, with the live page, and with one SLO class that nobody can serve."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    model.mkdir(exist_ok=True)
    tiny.write(model)
    (folder / "sarathi.yaml").write_text(SETTINGS)
    own = ("--scheduler", policy, "--sarathi-config", str(folder / "sarathi.yaml"), *more)
    spec = ServerSpec(
        str(model), "tiny", folder / "server.log", (*SERVE, *own),
        {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_PLUGINS": allow_list(os.environ.get("VLLM_PLUGINS"))},
        start_timeout_s=600,
    )  # fmt: skip
    with serve(spec) as server:
        yield server


def make_client(server: RunningServer) -> StreamingClient:
    """Streams, with deadlines of the built-in classes."""
    targets = Targets(CLASSES["standard"], load_curve("a100-llama-3-8b"), CLASSES)
    return StreamingClient(Endpoint(server.url, server.name), targets)


def request(
    name: str, at_s: float, prompt: int, tokens: int, slo: str, rng: np.random.Generator
) -> ScheduledRequest:  # fmt: skip
    """One request of random tokens."""
    return ScheduledRequest(
        request_id=name, offset_ns=round(at_s * NS_PER_S), prompt=random_prompt(prompt, rng), prompt_tokens=prompt,
        max_tokens=tokens, ignore_eos=True, slo_class=slo,
    )  # fmt: skip


def traffic(seconds: float, seed: int = 0) -> Workload:
    """Chats at 1.5 requests a second, a document of 2,048 tokens every eight seconds, and last two of class strict."""
    rng = np.random.default_rng(seed)
    slo = ("interactive", "standard", "standard", "batch")
    offsets = poisson_arrivals(1.5, round(1.5 * seconds), rng)
    chats = [
        request(
            f"chat-{i}",
            offset / NS_PER_S,
            int(rng.integers(20, 300)),
            int(rng.integers(20, 120)),
            slo[i % 4],
            rng,
        )
        for i, offset in enumerate(offsets)
    ]
    chats += [request(f"strict-{i}", seconds, 20, 20, "strict", rng) for i in range(2)]
    documents = [
        request(f"document-{i}", at, 2048, 16, "standard", rng)
        for i, at in enumerate(np.arange(4, seconds, 8).tolist())
    ]
    return Workload.ordered("monitoring", [*chats, *documents])


def stall(server: RunningServer, documents: int = 4) -> float:
    """Six open streams, then prompts of 12,000 tokens; the longest gap between two tokens of a stream, seconds."""
    rng = np.random.default_rng(1)
    streams = [request(f"stream-{i}", 0, 50, 150, "interactive", rng) for i in range(6)]
    late = [request(f"long-{i}", 0.8, 12_000, 8, "standard", rng) for i in range(documents)]
    result = run_open_loop(Workload.ordered("stall", [*streams, *late]), make_client(server).send)
    gaps = [gap for one in result.timelines if one.request_id.startswith("stream") for gap in one.gaps_ns]
    return max(gaps, default=0) / NS_PER_S


def firing(scraper: Scraper, alert: str, start: float) -> bool:
    """Whether an alert fired since ``start``."""
    window = preview.make_window(scraper.prometheus, (time.time() - start) / 60, time.time())
    expr = f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
    return bool(scraper.prometheus.over(expr, window.start, window.end, 1))


def draw(scraper: Scraper, path: Path, name: str, start: float, **values: str) -> None:
    """One dashboard from ``start`` until now."""
    window = preview.make_window(scraper.prometheus, (time.time() - start) / 60, time.time())
    preview.draw(scraper.prometheus, files.dashboards()[name], window, values, path)
    print(f"drew {path}")


def ask_everything(scraper: Scraper, start: float) -> int:
    """Run every query; print those without an answer; 1 when there are any."""
    window = preview.make_window(scraper.prometheus, (time.time() - start) / 60, time.time())
    asked, empty = questions.unanswered(scraper.prometheus, window)
    print(f"{asked} queries, {len(empty)} without an answer")
    for question in empty:
        print(f"  {question.where}: {question.expr}")
    return int(bool(empty))


def main() -> int:
    """The whole run; 1 when a query stays empty or the stall fires no alert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/monitoring-live"))
    parser.add_argument("--seconds", type=float, default=90, help="length of the load on each server")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    folder = given.out.resolve() / "run"
    folder.mkdir(exist_ok=True)
    with running_prometheus(folder) as scraper:
        return run(scraper, given.out, folder, given.seconds)


def run(scraper: Scraper, out: Path, folder: Path, seconds: float) -> int:
    """Both servers, one after the other: a machine with two cores cannot hold both at once."""
    with running_server(folder / "sarathi", "sarathi") as server:
        first = server.url.removeprefix("http://")
        began = start = put_under_load(scraper, server, seconds)
        wrong = ask_everything(scraper, start)
        picture_server(scraper, server, out, start)
    record = out.resolve() / "stall.jsonl.gz"
    with running_server(folder / "prefill-first", "prefill-first", "--sarathi-record", str(record)) as server:
        second = server.url.removeprefix("http://")
        start = put_under_load(scraper, server, seconds)
        with beside(lambda: page_pictures.take_stall(server.url, out / "page-stall.png")):
            wrong |= open_stall(scraper, server)
        draw(scraper, out / "stall.png", "fluidity", start)
    draw(scraper, out / "compare.png", "compare", began, arm_a=first, arm_b=second)
    return wrong


def picture_server(scraper: Scraper, server: RunningServer, out: Path, start: float) -> None:
    """The dashboards just after the load, and the page under more of it."""
    draw(scraper, out / "fluidity.png", "fluidity", start)
    draw(scraper, out / "scheduler.png", "scheduler", start)
    with beside(lambda: run_open_loop(traffic(PAGE_S, seed=2), make_client(server).send)):
        page_pictures.take(server.url, out, "interactive")


@contextlib.contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Do the work in a thread while the block runs; what it raises is raised at the end of the block."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        done.result()


def put_under_load(scraper: Scraper, server: RunningServer, seconds: float) -> float:
    """Scrape one server, and none besides, under load; returns when that began, Unix seconds."""
    print(f"up in {server.started_in_s:.0f} s at {server.url}; {seconds:.0f} s of load")
    start = time.time()
    scraper.scrape(server.url.removeprefix("http://"))
    time.sleep(2)
    run_open_loop(traffic(seconds), make_client(server).send)
    time.sleep(2)
    return start


def open_stall(scraper: Scraper, server: RunningServer) -> int:
    """Let streams stand still for more than ten seconds; 1 when they do not, or no alert fires."""
    start = time.time()
    longest = stall(server)
    time.sleep(3)
    fired = firing(scraper, "SarathiOpenStall", start)
    print(f"streams stood still for {longest:.1f} s; SarathiOpenStall {'fired' if fired else 'did not fire'}")
    return int(not (fired and longest >= 10))


if __name__ == "__main__":
    sys.exit(main())
