"""What would a policy do on an A100? The real scheduler on virtual time, for a few loads.

    python examples/04_simulate_a_policy.py [POLICY ...]

A policy of an installed plugin works like ours: pip install examples/custom_policy, then name shortest-first.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from sarathi_plugin.config import ConfigError, load_curve
from sarathi_plugin.core import SloClass
from sarathi_plugin.load.summary import summarise
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.simulate.run import Simulation, simulate
from sarathi_plugin.simulate.spec import EngineSpec
from sarathi_plugin.steptime.profile import read_profile
from sarathi_plugin.workload.kinds import make_trace

MACHINE = "a100-llama-3-8b-tp1"
SETTINGS = {"tbt_ms": 50, "ttft_slack_ms": 1000, "prefill_curve": MACHINE}


def main() -> None:
    """Three loads for each policy, the same requests for all."""
    profile = read_profile(MACHINE)
    targets = Targets(SloClass("standard", 50_000_000, 1_000_000_000), load_curve(MACHINE))
    for rate in (1.5, 2.0, 2.5):
        trace = make_trace("sharegpt-like", rate=rate, count=200, seed=0)
        for policy in sys.argv[1:] or ["vllm", "sarathi-static", "sarathi"]:
            engine = EngineSpec(scheduler=policy, sarathi=SETTINGS)
            found = summarise(
                simulate(Simulation(profile=profile, engine=engine, trace=trace, targets=targets)).timelines
            )
            print(
                f"{rate} requests/s {policy:<16} fluid {found.fluid_share:6.1%}  "
                f"TTFT P99 {found.ttft_p99_ns / 1e9:6.2f} s  TBT P99 {found.tbt_p99_ns / 1e6:6.1f} ms",
                flush=True,
            )


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
