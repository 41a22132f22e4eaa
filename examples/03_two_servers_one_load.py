"""Start two servers, one after the other, and draw what the same load looks like on both.

    python examples/03_two_servers_one_load.py out --first-flags="--max-num-batched-tokens 256" \
        --second-flags="--scheduler sarathi"

Uses the tiny model with random weights; needs the extras [vllm] and [demo].
"""

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np

from sarathi_plugin.config import ConfigError, load_curve
from sarathi_plugin.core import NS_PER_MS, SloClass
from sarathi_plugin.demo import models, picture
from sarathi_plugin.demo.arms import Arm, server_spec
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.dispatch import run_open_loop
from sarathi_plugin.load.server import ServerError, serve
from sarathi_plugin.load.summary import summarise
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.workload import poisson_arrivals, synthetic_workload


def main() -> None:
    """Load both servers and draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--first-flags", default="")
    parser.add_argument("--second-flags", default="--scheduler sarathi")
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--requests", type=int, default=20)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    slo = SloClass("standard", 100 * NS_PER_MS, 1000 * NS_PER_MS)
    rng = np.random.default_rng(0)
    arrivals = poisson_arrivals(args.rate, args.requests, rng)
    workload = synthetic_workload("load", arrivals, rng, scale=0.3)
    model = models.tiny_model(models.cache_folder())
    panels = []
    for name, flags in (("first", args.first_flags), ("second", args.second_flags)):
        with serve(server_spec(Arm(name, name, tuple(shlex.split(flags))), model, args.out)) as server:
            targets = Targets(slo, load_curve("a100-llama-3-8b"))
            run = run_open_loop(workload, StreamingClient(Endpoint(server.url, server.name), targets).send)
        summary = summarise(run.timelines)
        rows = tuple(picture.row(t, run.start_ns, f"{t.prompt_tokens:,} tokens") for t in run.timelines)
        panels.append(picture.Panel(flags or "stock", f"{summary.fluid_share:.0%} of requests fluid", rows))
        print(flags or "stock", summary)
    picture.draw(args.out / "timelines.png", panels, slo)
    print(args.out / "timelines.png")


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except ServerError as error:
        sys.exit(str(error))
