"""The live half: servers of every policy, one loaded at a time, calibration and test interleaved."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.config import load_curve
from sarathi_plugin.core import SloClass
from sarathi_plugin.demo import tiny
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.dispatch import run_open_loop
from sarathi_plugin.load.server import RunningServer, ServerSpec, serve
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.workload.kinds import make_trace
from sarathi_plugin.workload.synthetic import workload_of

if TYPE_CHECKING:
    from pathlib import Path

    from sarathi_plugin.workload.trace import Trace

POLICIES = ("vllm", "sarathi-static", "sarathi")
NAME = "fast"
TBT_MS, SLACK_MS = 40.0, 500.0
BUDGET = 512
ENGINE_CORE, CLIENT_CORE = 0, 1
ENGINE_ARGS = (
    "--load-format", "dummy", "--dtype", "float32", "--enforce-eager", "--max-model-len", "8192",
    "--max-num-seqs", "64", "--no-enable-prefix-caching",
)  # fmt: skip
ENGINE_ENV = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": str(ENGINE_CORE)}
"""The tiny model, with one core for the engine."""

IDLE_S = 4.0
"""vLLM's worker spins for about three seconds after its last step; the reference kernel waits for it."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Lengths of a kind, scaled to the small model, at a rate."""

    name: str
    kind: str
    scale: float
    rate: float
    seed: int

    def trace(self, seconds: float) -> Trace:
        """The same requests whenever it is asked."""
        trace = make_trace(
            self.kind, rate=self.rate, count=max(20, round(self.rate * seconds)), seed=self.seed
        )
        return trace.resized(self.scale, self.scale)


CALIBRATION = Traffic("calibration", "azure-conv-like", 0.5, 2.0, 7)
TESTS = (Traffic("chats", "sharegpt-like", 0.25, 1.2, 1), Traffic("documents", "arxiv-like", 0.15, 1.0, 2))


@dataclass(frozen=True, slots=True)
class Run:
    """One loaded stretch of a server, on the monotonic clock. kernel: seconds of the reference kernel around it."""

    repeat: int
    policy: str
    traffic: str
    start_ns: int
    end_ns: int
    kernel_before_s: float
    kernel_after_s: float
    dispatch_lag_ms: float
    failed: int

    @property
    def kernel_shift(self) -> float:
        """By what share the machine's speed moved during the run."""
        return abs(self.kernel_after_s / self.kernel_before_s - 1)


def kernel_s() -> float:
    """Seconds of a fixed piece of work on the engine's core: the median of 80 matrix products, about a second."""
    time.sleep(IDLE_S)
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {ENGINE_CORE})
    matrix = np.random.default_rng(0).random((768, 768), np.float32)
    times = []
    for _ in range(83):
        begin = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - begin)
    os.sched_setaffinity(0, mine)
    return float(np.median(times[3:]))


def collect(out: Path, *, repeats: int, seconds: float) -> None:
    """Serve, load, record; leaves ``runs.json`` and a recording per policy in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    model = out / "model"
    model.mkdir(exist_ok=True)
    tiny.write(model)
    os.sched_setaffinity(0, {CLIENT_CORE})
    with contextlib.ExitStack() as stack:
        servers = {}
        for policy in POLICIES:
            print(f"starting a server with --scheduler {policy}", file=sys.stderr, flush=True)
            servers[policy] = stack.enter_context(serve(spec_of(policy, model, out)))
        runs: list[Run] = []
        plan = [(-1, CALIBRATION, policy) for policy in POLICIES]
        plan += [(r, t, p) for r in range(repeats) for t in (CALIBRATION, *TESTS) for p in POLICIES]
        for number, (repeat, traffic, policy) in enumerate(plan, 1):
            warm_up = repeat < 0
            run = load(servers[policy], policy, traffic, repeat, 5.0 if warm_up else seconds)
            print(
                f"{number}/{len(plan)} repeat {repeat} {policy} {traffic.name} {run}",
                file=sys.stderr,
                flush=True,
            )
            if not warm_up:
                runs.append(run)
        time.sleep(2)  # the recorder writes twice a second
    (out / "runs.json").write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")


def spec_of(policy: str, model: Path, out: Path) -> ServerSpec:
    """One server: one core for the engine, everything else alike."""
    recording = out / f"{policy}.jsonl.gz"
    recording.unlink(missing_ok=True)
    budget = () if policy == "sarathi" else ("--max-num-batched-tokens", str(BUDGET))
    args = (
        *ENGINE_ARGS, "--scheduler", policy,
        "--sarathi-tbt-ms", str(TBT_MS), "--sarathi-ttft-slack-ms", str(SLACK_MS),
        "--sarathi-record", str(recording), *budget,
    )  # fmt: skip
    return ServerSpec(str(model), NAME, out / f"{policy}.log", args, ENGINE_ENV)


def load(server: RunningServer, policy: str, traffic: Traffic, repeat: int, seconds: float) -> Run:
    """Load one server and wait for every answer."""
    targets = Targets(
        SloClass("standard", round(TBT_MS * 1e6), round(SLACK_MS * 1e6)), load_curve("a100-llama-3-8b")
    )
    client = StreamingClient(Endpoint(server.url, NAME), targets)
    before = kernel_s()
    start = time.monotonic_ns()
    result = run_open_loop(workload_of(traffic.trace(seconds), traffic.seed), client.send)
    end = time.monotonic_ns()
    return Run(
        repeat,
        policy,
        traffic.name,
        start,
        end,
        before,
        kernel_s(),
        result.dispatch_lag_p99_ns / 1e6,
        sum(timeline.status != "finished" for timeline in result.timelines),
    )
