"""Send ShareGPT-like traffic at a fixed rate, whatever the server does, and sum it up.

python examples/02_open_loop_load.py http://127.0.0.1:8000 --rate 1 --requests 40 --scale 0.1 --out run.jsonl.gz
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from sarathi_plugin.config import ConfigError, load_curve
from sarathi_plugin.core import NS_PER_MS, SloClass
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.curve import served_model
from sarathi_plugin.load.dispatch import Progress, run_open_loop
from sarathi_plugin.load.summary import summarise
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.load.timelines import write_timelines
from sarathi_plugin.workload import poisson_arrivals, synthetic_workload


def show(progress: Progress) -> None:
    """One line that is overwritten."""
    print(f"\r{progress.finished} of {progress.total} answered, {progress.failed} failed", end="", flush=True)


def main() -> None:
    """Send the load and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=1.0, help="requests per second")
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--scale", type=float, default=0.1, help="ShareGPT lengths times this")
    parser.add_argument("--tbt-ms", type=float, default=100.0)
    parser.add_argument("--ttft-slack-ms", type=float, default=1000.0)
    parser.add_argument("--curve", default="a100-llama-3-8b", help="a shipped prefill curve or a file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    model, limit = served_model(args.url)
    slo = SloClass("standard", round(args.tbt_ms * NS_PER_MS), round(args.ttft_slack_ms * NS_PER_MS))
    client = StreamingClient(Endpoint(args.url, model), Targets(slo, load_curve(args.curve)))
    rng = np.random.default_rng(args.seed)
    arrivals = poisson_arrivals(args.rate, args.requests, rng)
    workload = synthetic_workload("load", arrivals, rng, scale=args.scale, max_model_tokens=limit)
    result = run_open_loop(workload, client.send, progress=show)
    print(f"\n{summarise(result.timelines)}")
    print(f"client sent at most {result.dispatch_lag_p99_ns / NS_PER_MS:.1f} ms late (P99)")
    if args.out:
        write_timelines(args.out, result.timelines)


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
