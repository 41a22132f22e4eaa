"""Sarathi-Serve's headline in one engine: capacity of stall-free batching against its baselines, and pipeline bubbles.

    make bench-headline [ARGS="--profiles a100-llama-3-8b-tp1 --seeds 3 --requests 400"]

Capacity by the paper's criterion (P99 TBT over all tokens within a target, median scheduling delay at most 2 s) of
``sarathi-static``, ``prefill-first`` and ``orca``, and of stock vLLM at its default, on ShareGPT-like and arXiv-like
traffic. Targets as in the paper: 5 times (strict) and 25 times (relaxed) a decode step of 32 requests at 4k context
without a prompt beside it; budgets too: 512 tokens under the strict one, 2048 under the relaxed one. Then the share of
time for which the stages of a pipeline of two stand still. Virtual time; searches are kept in ``out/bench-headline``.

The same on real servers: ``headline_live.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
from headline_table import capacity_rows, markdown
from publish import RESULTS, publish

PROFILES = ("a100-llama-3-8b-tp1", "a100-codellama-34b-tp2")
TRAFFIC = {"sharegpt-like": 8192, "arxiv-like": 16_384}
"""Kind -> model length, as in the paper."""

OBJECTIVES = {"strict": (5, 512), "relaxed": (25, 2048)}
"""Multiple of the decode step, and token budget of sarathi-static."""

ARMS = ("sarathi-static", "prefill-first", "orca", "stock")
MOST_RUNNING = 128
RESOLUTION = 0.025
BACKLOG_ARMS = (
    ("sarathi-static", "strict"),
    ("sarathi-static", "relaxed"),
    ("prefill-first", "relaxed"),
    ("orca", "relaxed"),
)
"""Policies of the pipeline; the objective says the budget of sarathi-static alone."""

PIPELINE_PROFILE, PIPELINE_REQUESTS, PIPELINE_RATE = "a100-codellama-34b-tp2", 150, 20.0
"""All arrive within seconds: what then stands still is a bubble, not a want of requests."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One search."""

    profile: str
    traffic: str
    objective: str
    arm: str
    seed: int
    requests: int


def engine_of(arm: str, traffic: str, objective: str, *, stages: int = 1) -> Any:
    """The engine of an arm: alike but for scheduler and budget."""
    from sarathi_plugin.simulate.spec import EngineSpec

    budget = OBJECTIVES[objective][1] if arm == "sarathi-static" else None
    return EngineSpec(
        scheduler=arm,
        sarathi={"token_budget": budget} if budget else {},
        max_num_batched_tokens=budget,
        max_num_seqs=MOST_RUNNING,
        max_model_len=TRAFFIC[traffic],
        enable_prefix_caching=False,
        pipeline_parallel_size=stages,
    )


def target_s(profile: str, objective: str) -> float:
    """The limit of P99 TBT, seconds."""
    from sarathi_plugin.core import NS_PER_S
    from sarathi_plugin.simulate.targets import reference_decode_ns
    from sarathi_plugin.steptime.profile import read_profile

    return OBJECTIVES[objective][0] * reference_decode_ns(read_profile(profile)) / NS_PER_S


def search(cell: Cell) -> dict[str, Any]:
    """Capacity of one cell under one seed."""
    from sarathi_plugin.search.criteria import Sarathi
    from sarathi_plugin.search.deployment import Deployment, Traffic, first_guess
    from sarathi_plugin.search.promise import Promise
    from sarathi_plugin.search.simulated_capacity import Search, run_search
    from sarathi_plugin.workload.spec import WorkloadSpec

    begin = time.process_time()
    deployment = Deployment(
        profile=cell.profile, engine=engine_of(cell.arm, cell.traffic, cell.objective), promise=Promise()
    )
    traffic = Traffic(WorkloadSpec(kind=cell.traffic), cell.requests)
    found = run_search(
        Search(
            label=cell.arm,
            deployment=deployment,
            traffic=traffic,
            criterion=Sarathi(tbt_s=target_s(cell.profile, cell.objective)),
            seed=cell.seed,
            start=first_guess(deployment, traffic),
            resolution=RESOLUTION,
        )
    )
    keep = ("tbt_p99_s", "ttft_p50_s", "ttft_p99_s", "delay_p50_s")
    return {
        "capacity": found.capacity.rate,
        "limit": found.capacity.limit,
        "figures": {name: found.figures[name] for name in keep} if found.figures else {},
        "cpu_s": round(time.process_time() - begin, 1),
    }


def pipeline(cell: Cell) -> dict[str, Any]:
    """Two stages under a backlog: how long they stand still, and what it does to tokens."""
    from sarathi_plugin.search.deployment import Deployment, Traffic
    from sarathi_plugin.search.figures import figures_of
    from sarathi_plugin.search.promise import Promise
    from sarathi_plugin.simulate.run import simulate
    from sarathi_plugin.workload.spec import WorkloadSpec

    begin = time.process_time()
    engine = engine_of(cell.arm, cell.traffic, cell.objective, stages=2)
    deployment = Deployment(profile=cell.profile, engine=engine, promise=Promise())
    trace = Traffic(WorkloadSpec(kind=cell.traffic), cell.requests).at(PIPELINE_RATE, cell.seed)
    result = simulate(deployment.simulation(trace, cell.seed))
    figures = figures_of(result.timelines)
    return {
        "stage_idle": list(result.engines[0].stage_idle_shares),
        "tbt_p50_s": figures["tbt_p50_s"],
        "tbt_p99_s": figures["tbt_p99_s"],
        "tokens_per_s": figures["tokens_per_s"],
        "cpu_s": round(time.process_time() - begin, 1),
    }


def unit(job: tuple[str, Cell]) -> dict[str, Any]:
    """A job of the sweep."""
    kind, cell = job
    return pipeline(cell) if kind == "pipeline" else search(cell)


def kept(job: tuple[str, Cell], out: Path) -> Path:
    """Where its result is kept; other code is another place."""
    from policies.work import code_digest

    kind, cell = job
    parts = (kind, cell.profile, cell.traffic, cell.objective, cell.arm, str(cell.seed), str(cell.requests))
    return out / code_digest() / ("-".join(parts) + ".json")


def work_off(
    jobs: list[tuple[str, Cell]], out: Path, workers: int | None
) -> dict[tuple[str, Cell], dict[str, Any]]:
    """Results of all jobs, those from before included."""
    from sarathi_plugin.simulate.sweep import sweep

    found = {job: json.loads(kept(job, out).read_text()) for job in jobs if kept(job, out).is_file()}
    missing = [job for job in jobs if job not in found]
    begin = time.monotonic()
    for done, (job, result) in enumerate(sweep(unit, missing, workers=workers), 1):
        path = kept(job, out)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result))
        part.replace(path)
        found[job] = result
        left = (time.monotonic() - begin) / done * (len(missing) - done) / 60
        print(
            f"{done}/{len(missing)}, about {left:.0f} min left: {path.stem} {result}",
            file=sys.stderr,
            flush=True,
        )
    return found


def summarise(
    found: dict[tuple[str, Cell], dict[str, Any]], options: argparse.Namespace, seeds: list[int]
) -> dict[str, Any]:
    """Everything for the tables, as plain data."""
    runs = [
        {**asdict(cell), **result, "target_s": round(target_s(cell.profile, cell.objective), 4)}
        for (kind, cell), result in found.items()
        if kind == "capacity"
    ]
    backlog = []
    for (kind, cell), result in found.items():
        if kind == "pipeline":
            budget = f" ({OBJECTIVES[cell.objective][1]} tokens)" if cell.arm == "sarathi-static" else ""
            backlog.append({"traffic": cell.traffic, "label": f"{cell.arm}{budget}", **result})
    order = {name: number for number, name in enumerate((*options.profiles, *TRAFFIC, *OBJECTIVES))}
    rows = capacity_rows(runs, ARMS)
    rows.sort(key=lambda row: [order[row[key]] for key in ("profile", "traffic", "objective")])
    backlog.sort(key=lambda row: (order[row["traffic"]], row["label"]))
    pipe = {
        "profile": PIPELINE_PROFILE,
        "requests": PIPELINE_REQUESTS,
        "rate": PIPELINE_RATE,
        "rows": backlog,
    }
    return {"seeds": seeds, "requests": options.requests, "rows": rows, "pipeline": pipe}


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profiles", nargs="+", default=list(PROFILES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("out/bench-headline"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    """The command."""
    options = parse()
    seeds = list(range(options.seeds))
    jobs = [
        ("capacity", Cell(profile, traffic, objective, arm, seed, options.requests))
        for profile in options.profiles
        for traffic in TRAFFIC
        for objective in OBJECTIVES
        for arm in ARMS
        for seed in seeds
    ]
    jobs += [
        ("pipeline", Cell(PIPELINE_PROFILE, traffic, objective, arm, 0, PIPELINE_REQUESTS))
        for traffic in TRAFFIC
        for arm, objective in BACKLOG_ARMS
    ]
    begin = time.monotonic()
    found = work_off(jobs, options.out, options.workers)
    summary = summarise(found, options, seeds)
    summary["wall_minutes"] = round((time.monotonic() - begin) / 60, 1)
    publish("headline", summary, markdown(summary, ARMS), options.results)


if __name__ == "__main__":
    main()
