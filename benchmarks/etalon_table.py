"""Etalon's figures of every policy in one table: fluidity-index, token rates by three measures, acceptance curve.

    make bench-etalon [ARGS="--rates 2.5 --requests 400 --seeds 2"]

One load of ShareGPT-like traffic on the simulated A100 for all policies: the mean over seeds of each figure. D_d 50 ms,
TTFT slack 1 s. The curve is what 99 % of the requests reach at each D_d, the first token left out, as Etalon draws it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from publish import RESULTS, publish

from sarathi_plugin.search.deployment import Deployment, Traffic
from sarathi_plugin.search.figures import etalon_of, figures_of
from sarathi_plugin.search.promise import Promise
from sarathi_plugin.simulate.run import simulate
from sarathi_plugin.simulate.spec import EngineSpec
from sarathi_plugin.simulate.sweep import sweep
from sarathi_plugin.workload.spec import WorkloadSpec

PROFILE, TRAFFIC = "a100-llama-3-8b-tp1", "sharegpt-like"
TBT_MS, SLACK_MS = 50, 1000
POLICIES = (
    "stock", "sarathi-static", "sarathi", "niyama", "fair-batching", "p-pas", "orca", "prefill-first", "request-level",
    "alternate",
)  # fmt: skip
SHOWN_MS = (25, 30, 40, 50, 75, 100, 200)
KEYS = (
    "fluid_share", "fluidity_index", "fluid_token_rate", "token_rate_by_tbt", "token_rate_by_tpot", "ttft_p50_s",
    "ttft_p99_s", "tbt_p99_s",
)  # fmt: skip

Job = tuple[str, float, int, int]
"""Policy, rate, seed, requests."""


def run(job: Job) -> dict[str, Any]:
    """The figures of one policy under one seed."""
    policy, rate, seed, requests = job
    deployment = Deployment(
        profile=PROFILE,
        engine=EngineSpec(scheduler=policy, enable_prefix_caching=False),
        promise=Promise(tbt_ms=TBT_MS, ttft_slack_ms=SLACK_MS),
    )
    trace = Traffic(WorkloadSpec(kind=TRAFFIC), requests).at(rate, seed)
    timelines = simulate(deployment.simulation(trace, seed)).timelines
    return figures_of(timelines) | etalon_of(timelines)


def row_of(policy: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds."""
    row: dict[str, Any] = {"policy": policy}
    for key in KEYS:
        row[key] = statistics.fmean(one[key] or 0.0 for one in runs)
    curves = [dict(one["acceptance_curve"]) for one in runs]
    row["acceptance_curve"] = [[ms, statistics.fmean(curve[ms] for curve in curves)] for ms in curves[0]]
    return row


def markdown(summary: dict[str, Any]) -> str:
    """The tables for people."""
    lines = [
        "# Etalon's figures of every policy",
        "",
        f"{TRAFFIC} on {PROFILE}, {summary['requests']} requests x {summary['seeds']} seeds; D_d {TBT_MS} ms, TTFT "
        f"slack {SLACK_MS / 1000:g} s. Accepted: the fluidity-index that 99 % of the requests reach at a D_d.",
    ]
    for rate, rows in summary["rates"].items():
        lines += [
            "",
            f"## {rate} requests/s",
            "",
            "| policy | fluid | fluidity-index | fluid token rate | by P99 TBT | by TPOT | TTFT P50 / P99 | "
            + " | ".join(f"{ms} ms" for ms in SHOWN_MS)
            + " |",
            "| --- |" + " --- |" * (6 + len(SHOWN_MS)),
        ]
        for row in rows:
            curve = dict(map(tuple, row["acceptance_curve"]))
            shown = [
                row["policy"],
                f"{row['fluid_share']:.1%}",
                f"{row['fluidity_index']:.3f}",
                *(f"{row[key]:.1f}" for key in KEYS[2:5]),
                f"{row['ttft_p50_s']:.2f} / {row['ttft_p99_s']:.2f} s",
                *(f"{curve[float(ms)]:.2f}" for ms in SHOWN_MS),
            ]
            lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", nargs="+", type=float, default=[2.0, 3.0])
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    jobs = [
        (policy, rate, seed, options.requests)
        for rate in options.rates
        for policy in POLICIES
        for seed in range(options.seeds)
    ]
    found: dict[Job, dict[str, Any]] = {}
    for done, (job, result) in enumerate(sweep(run, jobs, workers=options.workers), 1):
        found[job] = result
        print(f"{done}/{len(jobs)} {job[0]} {job[1]:g}/s", file=sys.stderr, flush=True)
    summary = {
        "requests": options.requests,
        "seeds": options.seeds,
        "rates": {
            f"{rate:g}": [
                row_of(policy, [found[policy, rate, seed, options.requests] for seed in range(options.seeds)])
                for policy in POLICIES
            ]
            for rate in options.rates
        },
    }
    publish("etalon", summary, markdown(summary), options.results)


if __name__ == "__main__":
    main()
