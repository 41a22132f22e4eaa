"""How fast the simulator is: steps per second by batch size, virtual against real time, and where the time goes.

Figures are ratios within one run, several repeats each. Run it on a machine that does nothing else::

    python benchmarks/simulator.py [--repeats 5] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import io
import json
import os
import pstats
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from sarathi_plugin.config import load_curve
from sarathi_plugin.core import SloClass
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.simulate.run import Simulation, simulate
from sarathi_plugin.simulate.spec import EngineSpec
from sarathi_plugin.steptime.profile import read_profile
from sarathi_plugin.workload.kinds import make_trace
from sarathi_plugin.workload.trace import Trace, TraceRequest

PROFILE = "a100-llama-3-8b-tp1"
TARGETS = Targets(SloClass("standard", 50_000_000, 10**9), load_curve(PROFILE))
BATCHES = (16, 64, 256)
SCHEDULERS = ("stock", "sarathi")
RATE, REQUESTS = 2.0, 1000


def constant_batch(running: int, outputs: int = 400) -> Trace:
    """So many streams at once, with a prompt of 1,000 tokens each that came in together."""
    requests = [
        TraceRequest(request_id=f"r{i}", offset_ns=0, prompt_tokens=1000, output_tokens=outputs)
        for i in range(running)
    ]
    return Trace(f"{running} streams", tuple(requests))


def once(scheduler: str, trace: Trace, *, forward: bool) -> tuple[float, float, int]:
    """(CPU seconds, virtual seconds, steps) of one simulation."""
    settings = {} if scheduler == "stock" else {"tbt_ms": 50, "prefill_curve": PROFILE}
    wanted = Simulation(
        profile=read_profile(PROFILE),
        engine=EngineSpec(
            scheduler=scheduler, sarathi=settings, max_model_len=16_384, enable_prefix_caching=False
        ),
        trace=trace,
        targets=TARGETS,
        forward=forward,
    )
    begin = time.process_time()
    result = simulate(wanted)
    return time.process_time() - begin, result.engines[0].span_ns / 1e9, result.engines[0].steps


def measure(scheduler: str, trace: Trace, repeats: int, *, forward: bool) -> dict[str, Any]:
    """Medians over repeats, with the range."""
    runs = [once(scheduler, trace, forward=forward) for _ in range(repeats)]
    rates = sorted(steps / cpu for cpu, _, steps in runs)
    ratios = sorted(virtual / cpu for cpu, virtual, _ in runs)
    return {
        "scheduler": scheduler,
        "traffic": trace.name,
        "forward": forward,
        "steps": runs[0][2],
        "steps_per_s": round(statistics.median(rates)),
        "steps_per_s_range": [round(rates[0]), round(rates[-1])],
        "virtual_over_real": round(statistics.median(ratios), 1),
        "virtual_over_real_range": [round(ratios[0], 1), round(ratios[-1], 1)],
    }


def where_time_goes() -> str:
    """The functions that take most time in a loaded simulation without fast-forward."""
    profiler = cProfile.Profile()
    trace = make_trace("sharegpt-like", rate=RATE, count=150, seed=0)
    profiler.enable()
    once("sarathi", trace, forward=False)
    profiler.disable()
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(25)
    return text.getvalue()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="also say where the time goes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "simulator.json")
    options = parser.parse_args()
    once("stock", constant_batch(4, 20), forward=True)  # imports, configurations
    gc.collect()
    gc.freeze()
    load = make_trace("sharegpt-like", rate=RATE, count=REQUESTS, seed=0)
    cases = [(constant_batch(running), forward) for running in BATCHES for forward in (False, True)]
    cases += [(load, False), (load, True)]
    rows = []
    for trace, forward in cases:
        repeats = options.repeats if forward or trace is not load else 1
        for scheduler in SCHEDULERS:
            row = measure(scheduler, trace, repeats, forward=forward)
            rows.append(row)
            low, high = row["steps_per_s_range"]
            print(
                f"{row['traffic']:<16} {scheduler:<8} {'fast-forward' if forward else 'every step':<13}"
                f"{row['steps_per_s']:>8,} steps/s ({low:,} to {high:,}), "
                f"{row['virtual_over_real']:>7,.0f} x real time",
                flush=True,
            )
    gc.unfreeze()  # or what stays frozen is reported as leaked when Python ends
    options.out.write_text(json.dumps({"profile": PROFILE, "rows": rows}, indent=1) + "\n")
    if options.profile:
        print(where_time_goes())


if __name__ == "__main__":
    sys.exit(main())
