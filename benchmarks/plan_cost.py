"""What deciding one step costs at a large batch and a long queue: the parts of ``before_schedule``, apart.

256 requests decode, 1,000 prompts wait. Every step of the real scheduler times *fill* (vLLM's state into the view),
*plan* (the policy) and *apply* (its plan onto the levers); the rest of the step is not part of it.
Run it on a machine that does nothing else::

    python benchmarks/plan_cost.py [--rounds 400] [--cached] [--out results/plan-cost.json] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import os
import pstats
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "engine"))

from emulator import VirtualClock, make_config, make_scheduler
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request

DECODES, WAITING, PLACES = 256, 1000, 260
BLOCKS = 60_000
PARTS = ("fill", "plan", "apply")
WARM_UP = 80
"""Steps until the step-time model is past its first, unsteady ones."""

LIMIT_MS = 0.3


class Engine:
    """One scheduler kept at so many decodes and so many waiting prompts."""

    def __init__(self, folder: Path, policy: str, *, cached: bool) -> None:
        config = make_config(
            folder, budget=8192, max_seqs=PLACES, max_model_len=16_384, prefix_caching=cached
        )
        self.hasher = get_request_block_hasher(16, sha256) if cached else None
        config.model_config.max_model_len = 200_000
        self.clock = VirtualClock()
        self.scheduler = make_scheduler(config, policy, blocks=BLOCKS, clock=self.clock, tbt_ms=100.0)
        self.rng = random.Random(0)  # noqa: S311  (lengths, not secrets)
        self.count = 0
        for _ in range(DECODES):
            self.add(self.rng.randint(16, 256), 100_000)
        while self.scheduler.waiting or any(r.is_prefill_chunk for r in self.scheduler.running):
            self.step()
        self.refill()

    def add(self, prompt: int, tokens: int) -> None:
        """Queue a request."""
        self.count += 1
        sampling = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0.0)
        shared = prompt // 2  # with prefix caching; the rest is a text of its own
        tokens_of = [5] * shared + [6 + self.count % 1000] * (prompt - shared)
        self.scheduler.add_request(
            Request(
                f"r{self.count}", tokens_of, sampling, None, arrival_time=self.clock.ns / 1e9,
                block_hasher=self.hasher,
            )
        )  # fmt: skip

    def refill(self) -> None:
        """As many wait as at first."""
        while len(self.scheduler.waiting) < WAITING:
            self.add(self.rng.randint(64, 8000), 1)

    def step(self) -> None:
        """One whole step; a prompt that is done leaves with its first token."""
        scheduler = self.scheduler
        output = scheduler.schedule()
        requests = scheduler.requests
        names = list(output.num_scheduled_tokens)
        sampled = [[] if requests[name].is_prefill_chunk else [7] for name in names]
        result = ModelRunnerOutput(
            req_ids=names, req_id_to_index={n: i for i, n in enumerate(names)}, sampled_token_ids=sampled
        )
        self.clock.ns += 20_000_000 + 50_000 * output.total_num_scheduled_tokens
        scheduler.update_from_output(output, result)


class Timed:
    """Another object, with one or more of its methods timed. spent: nanoseconds of the last call, by method."""

    def __init__(self, inner: Any, methods: tuple[str, ...], profiler: cProfile.Profile | None) -> None:
        self._inner = inner
        self.spent: dict[str, int] = {}
        for name in methods:
            setattr(self, name, self._timed(name, getattr(inner, name), profiler))

    def _timed(self, name: str, method: Any, profiler: cProfile.Profile | None) -> Any:
        def call(*args: Any) -> Any:
            if profiler:
                profiler.enable()
            begin = time.perf_counter_ns()
            found = method(*args)
            self.spent[name] = time.perf_counter_ns() - begin
            if profiler:
                profiler.disable()
            return found

        return call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def measure(
    policy: str, rounds: int, profiler: cProfile.Profile | None, *, cached: bool = False
) -> dict[str, Any]:
    """Medians and 90th percentiles over the rounds, milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder), policy, cached=cached)
    driver = engine.scheduler.sarathi
    adapter = driver._adapter = Timed(driver._adapter, ("fill", "apply"), profiler)
    chosen = driver._policy = Timed(driver._policy, ("plan",), profiler)
    for _ in range(WARM_UP):
        engine.step()
        engine.refill()
    parts: dict[str, list[float]] = {name: [] for name in (*PARTS, "sum")}
    gc.collect()
    gc.disable()
    for turn in range(rounds):
        engine.step()
        spent = {**adapter.spent, **chosen.spent}
        for name in PARTS:
            parts[name].append(spent[name] / 1e6)
        parts["sum"].append(sum(spent.values()) / 1e6)
        engine.refill()
        if turn % 50 == 0:
            gc.collect()
            print(f"\r{policy}: round {turn} of {rounds} ", end="", file=sys.stderr, flush=True)
    gc.enable()
    running = len(engine.scheduler.running)
    assert running >= DECODES
    found: dict[str, Any] = {"policy": policy, "rounds": rounds, "running": running, "waiting": WAITING}
    for name, values in parts.items():
        found[name] = {
            "median_ms": round(statistics.median(values), 4),
            "p90_ms": round(statistics.quantiles(values, n=10)[-1], 4),
        }
    return found


def main() -> None:
    """Print a table; write it where asked. Exit code 1 when the median of ours is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cached", action="store_true", help="the first half of every prompt is cached")
    parser.add_argument(
        "--profile", action="store_true", help="where the time of sarathi goes (and more of it)"
    )
    options = parser.parse_args()
    profiler = cProfile.Profile() if options.profile else None
    policies = ("sarathi",) if profiler else ("sarathi", "sarathi-static", "vllm")
    rows = [measure(policy, options.rounds, profiler, cached=options.cached) for policy in policies]
    print(f"\n{DECODES} running, {WAITING} waiting; median (90th percentile), ms")
    print(f"{'':16}" + "".join(f"{name:>18}" for name in (*PARTS, "sum")))
    for row in rows:
        cells = (f"{row[name]['median_ms']:.3f} ({row[name]['p90_ms']:.3f})" for name in (*PARTS, "sum"))
        print(f"{row['policy']:16}" + "".join(f"{cell:>18}" for cell in cells))
    if profiler:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
        return
    if options.out:
        options.out.write_text(json.dumps({"limit_ms": LIMIT_MS, "policies": rows}, indent=1) + "\n")
    if rows[0]["sum"]["median_ms"] > LIMIT_MS:
        sys.exit(f"above the limit of {LIMIT_MS} ms")


if __name__ == "__main__":
    main()
