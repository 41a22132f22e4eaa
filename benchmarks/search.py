"""The configuration search, timed, and its winner against eight configurations that a person would try.

    make bench-search [ARGS="--trials 120"]        # on the simulator
    make bench-search ARGS="--record --live"       # on a profile of this machine, recorded first; the winner is served

The tiny model's machine (``cpu-fast-model``, or as recorded), ShareGPT-like lengths times 0.25, D_d 50 ms, TTFT slack
300 ms; a run passes with 95 % fluid requests, as in the live bench. All nine capacities are searched with the same
seeds, none of which the search has seen.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from publish import RESULTS, publish

from sarathi_plugin.demo.models import cache_folder, tiny_model
from sarathi_plugin.load.machine import hardware, kept_to
from sarathi_plugin.search import search_command
from sarathi_plugin.search.pareto import label_of
from sarathi_plugin.search.repeats import mean_interval
from sarathi_plugin.search.search_text import verification
from sarathi_plugin.search.space import SearchFile, applicable, every, key_of
from sarathi_plugin.search.study import run_all
from sarathi_plugin.search.trial import predicted

MACHINE = "cpu-fast-model"
SEATS = [8, 16, 32, 64, 128]
SERVE = ("--load-format", "dummy", "--dtype", "float32", "--enforce-eager")
LENGTH = ("--max-model-len", "8192")
ENGINE_CORE, *CLIENT_CORES = sorted(os.sched_getaffinity(0))
ENV = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": str(ENGINE_CORE)}
BUDGETS = [64, 128, 256, 384, 512, 768, 1024, 2048]
FRESH_SEEDS = range(700, 703)

HAND = (
    ("stock", 2048, 64, {}),
    ("stock", 512, 64, {}),
    ("stock", 256, 64, {}),
    ("stock", 512, 32, {}),
    ("sarathi-static", 512, 64, {}),
    ("sarathi-static", 256, 64, {}),
    ("sarathi", 2048, 64, {}),
    ("sarathi", 2048, 128, {"sarathi.slo": "gap"}),
)
"""What a person would try, as (scheduler, budget, seats, settings): vLLM's default, smaller budgets, ours."""


def wanted(options: argparse.Namespace) -> SearchFile:
    """The search, as its file would say it."""
    return SearchFile.model_validate(
        {
            "workload": {"kind": "sharegpt-like", "prompt_scale": 0.25, "output_scale": 0.25},
            "requests": options.requests,
            "criterion": {"name": "fluid", "share": 0.95},
            "promise": {"tbt_ms": 50, "ttft_slack_ms": 300},
            "engine": {
                "max_model_len": 8192,
                "block_size": 32,
                "enable_prefix_caching": False,
                "async_scheduling": False,
            },
            "space": {
                "profile": [options.profile],
                "scheduler": ["stock", "sarathi-static", "sarathi", "niyama", "fair-batching"],
                "max_num_batched_tokens": BUDGETS,
                "max_num_seqs": SEATS,
                "sarathi": {"slo": ["deadline", "gap"], "policy.look_ahead": [0.2, 0.5, 0.8]},
            },
            "trials": options.trials,
            "minutes": options.minutes,
            "serve": {
                "model": str(tiny_model(cache_folder()).folder),
                "args": list(SERVE),
                "env": ENV,
                "client_cores": CLIENT_CORES,
            },
        }
    )


def record(out: Path) -> str:
    """A profile of the tiny model on this machine, now: ``sarathi profile record`` and ``fit``. Returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    grid, profile = out / "grid.jsonl.gz", out / "profile.json"
    model = str(tiny_model(cache_folder()).folder)
    sarathi = [sys.executable, "-m", "sarathi_plugin.cli", "profile"]
    record = [*sarathi, "record", model, "--out", str(grid), "--streams", str(max(SEATS)), "--"]
    with kept_to(CLIENT_CORES):
        subprocess.run([*record, *SERVE, *LENGTH], check=True, env={**os.environ, **ENV})
    subprocess.run([*sarathi, "fit", str(grid), "--out", str(profile), "--name", "recorded"], check=True)
    return str(profile)


def by_hand(machine: str) -> list[dict[str, Any]]:
    """The eight as configurations of the same space."""
    base = {
        "profile": machine, "kv_cache_gb": None, "pipeline_parallel_size": 1, "long_prefill_token_threshold": 0,
        "replicas": 1,
    }  # fmt: skip
    return [
        applicable(
            {
                **base,
                "scheduler": scheduler,
                "max_num_batched_tokens": budget,
                "max_num_seqs": seats,
                **settings,
            }
        )
        for scheduler, budget, seats, settings in HAND
    ]


def compare(winner: dict[str, Any], search: SearchFile, workers: int | None) -> list[dict[str, Any]]:
    """Capacities of the winner and the eight on fresh seeds."""
    configs = [winner, *by_hand(winner["profile"])]
    trials = [trial for config in configs for trial in predicted(config, search, FRESH_SEEDS)]
    found: dict[str, dict[int, float]] = {}
    for done, (trial, row) in enumerate(run_all(trials, workers=workers, ray_address=None), 1):
        found.setdefault(key_of(trial.config), {})[trial.seed] = row["capacity"] or 0.0
        print(f"comparison {done}/{len(trials)}", file=sys.stderr, flush=True)
    rows = []
    for config in configs:
        rates = [found[key_of(config)][seed] for seed in FRESH_SEEDS]
        rows.append({"config": config, "capacities": rates, "interval": mean_interval(rates)})
    return rows


def markdown(summary: dict[str, Any]) -> str:
    """The table for people."""
    lines = [
        "# Configuration search",
        "",
        f"{summary['tried']} of {summary['space']} configurations in {summary['search_s'] / 60:.1f} minutes on "
        f"{summary['machine']} ({summary['hopeless']} given up early), finals included {summary['total_s'] / 60:.1f}.",
        "",
        "| | configuration | capacity, requests/s (95 % interval) |",
        "| --- | --- | --- |",
    ]
    for number, row in enumerate(summary["rows"]):
        mean, low, high = row["interval"]
        who = "search" if number == 0 else "by hand"
        lines.append(f"| {who} | {label_of(row['config'])} | {mean:.2f} ({low:.2f} to {high:.2f}) |")
    if summary.get("verification"):
        lines += ["", verification(summary["verification"])]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument(
        "--live", action="store_true", help="serve the winner and measure it (machine otherwise idle)"
    )
    parser.add_argument("--record", action="store_true", help="search on a profile recorded now, here")
    parser.add_argument("--out", type=Path, default=Path("out/bench-search"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.profile = record(options.out) if options.record else MACHINE
    search = wanted(options)
    command = search_command.Options(out=options.out, workers=options.workers, live=options.live)
    begin = time.monotonic()
    search_command.command(
        search, command, say=lambda text: print(text, file=sys.stderr, flush=True), write=print
    )
    report = json.loads((options.out / "search.json").read_text())
    summary = {
        "machine": hardware(),
        "tried": report["tried"],
        "hopeless": report["hopeless"],
        "space": len(list(every(search.space))),
        "search_s": report["seconds"]["search"],
        "total_s": report["seconds"]["with_finals"],
        "winner": {
            key: report["winner"][key]
            for key in ("config", "capacity", "capacities", "interval_95", "figures")
        },
        "rows": compare(report["winner"]["config"], search, options.workers),
        "verification": report.get("verification"),
        "wall_s": round(time.monotonic() - begin, 1),
    }
    publish("search", summary, markdown(summary), options.results)


if __name__ == "__main__":
    main()
