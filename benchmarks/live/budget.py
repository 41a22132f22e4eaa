"""The best fixed budget of stock vLLM for the tiny model's runs, found on the simulator.

    python -m live.budget TBT_MS SLACK_MS SCALE TRAFFIC

A process of its own (it prints JSON), so that vLLM, torch and their threads do not stay in the one that measures.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from live.servers import CURVE, tiny_promise
from live.units import SESSIONS
from sarathi_plugin.search.capacity import find_capacity
from sarathi_plugin.search.simulated import judge_simulation
from sarathi_plugin.simulate.run import Simulation
from sarathi_plugin.simulate.spec import STOCK, EngineSpec
from sarathi_plugin.steptime.profile import read_profile
from sarathi_plugin.workload.kinds import make_trace

if TYPE_CHECKING:
    from sarathi_plugin.load.targets import Targets
    from sarathi_plugin.workload.trace import Trace

BUDGETS = (128, 256, 384, 512, 768, 1024, 2048)
SHARE, REQUESTS, SEEDS = 0.95, 240, (0, 1, 2)


def capacity(budget: int, seed: int, targets: Targets, scale: float, traffic: str) -> float:
    """Requests per second of which 95 % are fluid at this budget."""

    def trace_at(rate: float) -> Trace:
        trace = make_trace(traffic, rate=rate, count=REQUESTS, seed=seed)
        return trace.resized(scale, scale)

    wanted = Simulation(
        profile=read_profile(CURVE),
        engine=EngineSpec(
            scheduler=STOCK,
            max_num_batched_tokens=budget,
            max_num_seqs=64,
            max_model_len=8192,
            block_size=32,
            enable_prefix_caching=traffic in SESSIONS,
            async_scheduling=False,
        ),
        trace=trace_at(1.0),
        targets=targets,
        seed=seed,
    )
    judge = judge_simulation(wanted, trace_at, share=SHARE)
    return find_capacity(judge, start=2.0, lowest=0.05, highest=50.0, resolution=0.03).rate


def main() -> None:
    """Print the capacities and the best budget."""
    tbt_ms, slack_ms, scale = map(float, sys.argv[1:4])
    traffic = sys.argv[4]
    targets = tiny_promise(tbt_ms, slack_ms, traffic).targets
    found = {
        budget: round(sum(capacity(budget, seed, targets, scale, traffic) for seed in SEEDS) / len(SEEDS), 3)
        for budget in BUDGETS
    }
    print(json.dumps({"best": max(found, key=lambda budget: found[budget]), "capacities": found}))


if __name__ == "__main__":
    main()
