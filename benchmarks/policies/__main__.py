"""Fluid capacity of scheduling policies on virtual time, cell by cell: ours against every fixed budget.

    python -m policies [--set quick|balanced|full] [--split train|test] [--seeds 3] [--requests 1000]

First a coarse pass over all arms of a cell, then a fine one, seed by seed, over those that came near the best; then
the share of requests that fail at the load where the best fixed budget fails 5 %. Everything finished is kept in
``out/bench-policies`` and not computed again. The test split (seeds from 1000 on, and one kind of traffic) is for
claims: each use of it is written to ``benchmarks/results/test-set-uses.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

from publish import RESULTS, publish

from policies.arms import BASELINES, FIXED, FIXED_PRIORITY, FLAGSHIP, NIYAMA, Arm, default_arm
from policies.cells import SETS, TEST_SEED, Cell
from policies.table import Bench, best_single, markdown, summarise
from policies.work import Job, Store, code_digest, first_guess, run
from sarathi_plugin.simulate.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT_FIXED, KEPT_BASELINES = 3, 1
"""How many fixed budgets and baselines go on to the fine pass, by their coarse capacity; in the quick set two and none.
On go in any case ours, niyama, vLLM's default, and the fixed budget that does best over all cells."""

QUICK_BUDGETS = (256, 512, 1024, 2048, 8192)


def main() -> None:
    """The command."""
    options = parse(add_cells)
    cells = chosen(options)
    first = TEST_SEED if options.split == "test" else 0
    name = f"{options.set}, chosen" if options.cells else options.set
    bench = Bench(name, options.split, options.requests, tuple(range(first, first + options.seeds)))
    if options.split == "test":
        note_use(options)
    begin = time.monotonic()
    store = Store(options.out)
    coarse = coarse_pass(store, cells, options)
    fine = fine_pass(store, cells, coarse, bench, options)
    overload = overload_pass(store, cells, fine, bench, options) if options.set != "quick" else {}
    bounds = bound_pass(store, cells, bench, options)
    summary = summarise(bench, cells, coarse, fine, overload, bounds)
    summary["wall_minutes"] = round((time.monotonic() - begin) / 60, 1)
    summary["code"] = code_digest()
    which = "chosen" if options.cells else options.set
    publish(f"policies-{which}-{options.split}", summary, markdown(summary))


def add_cells(parser: argparse.ArgumentParser) -> None:
    """The option of this bench alone."""
    parser.add_argument(
        "--cells", nargs="+", metavar="CELL", help="only these of the set; a result of its own"
    )


def chosen(options: argparse.Namespace) -> list[Cell]:
    """The cells to measure. Ends the command, exit code 2, for names that are not in the set."""
    cells = [cell for cell in SETS[options.set] if options.split == "test" or not cell.test_only]
    if not options.cells:
        return cells
    if unknown := set(options.cells) - {cell.name for cell in cells}:
        print(
            f"No cell of this set and split is called {min(unknown)}; they are called like {cells[0].name}."
        )
        raise SystemExit(2)
    return [cell for cell in cells if cell.name in options.cells]


def parse(more: Callable[[argparse.ArgumentParser], None] | None = None) -> argparse.Namespace:
    """The options; ``more(parser)`` adds those of another bench over the same cells."""
    parser = argparse.ArgumentParser(prog="python -m policies", description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=SETS, default="balanced")
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--no-baselines", action="store_true", help="fixed budgets, niyama and ours only")
    parser.add_argument("--out", type=Path, default=Path("out/bench-policies"))
    if more is not None:
        more(parser)
    return parser.parse_args()


def note_use(options: argparse.Namespace) -> None:
    """The test set wears out with use: every use is on record."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    line = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "code": code_digest(),
        "set": options.set,
        "cells": options.cells,
        "seeds": options.seeds,
        "requests": options.requests,
    }
    with (RESULTS / "test-set-uses.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def arms_of(cell: Cell, which: str, *, baselines: bool) -> list[Arm]:
    """Everybody who competes in a cell of this set. baselines: those besides niyama too."""
    if which == "quick":
        fixed = [arm for arm in FIXED if arm.budget in QUICK_BUDGETS or arm.name == default_arm(cell)]
        return [*fixed, NIYAMA, FLAGSHIP]
    priority = FIXED_PRIORITY if cell.traffic == "mixed-classes" else []
    return [*FIXED, *priority, *(BASELINES if baselines else []), NIYAMA, FLAGSHIP]


def work_off(
    store: Store,
    jobs: list[Any],
    what: str,
    options: argparse.Namespace,
    unit: Callable[[Any], dict[str, Any]] = run,
) -> dict[Any, dict[str, Any]]:
    """Results of all jobs, in their order, those from before included; shows progress.

    unit: what computes one, like ``run`` a Job.
    """
    found = {job: result for job in jobs if (result := store.get(job)) is not None}
    missing = [job for job in jobs if job not in found]
    begin = time.monotonic()
    for done, (job, result) in enumerate(sweep(unit, missing, workers=options.workers), 1):
        store.put(job, result)
        found[job] = result
        left = (time.monotonic() - begin) / done * (len(missing) - done)
        print(
            f"{what} {done}/{len(missing)}, about {left / 60:.0f} min left: {job.cell.name} {job.arm.name} {result}",
            file=sys.stderr,
            flush=True,
        )
    return {job: found[job] for job in jobs}


def coarse_pass(store: Store, cells: list[Cell], options: argparse.Namespace) -> dict[Cell, dict[str, float]]:
    """Coarse capacity of every arm in every cell, on one training seed."""
    from policies.work import COARSE_REQUESTS

    jobs = [
        Job("coarse", cell, arm, 0, min(COARSE_REQUESTS, options.requests), round(first_guess(cell), 4))
        for cell in cells
        for arm in arms_of(cell, options.set, baselines=not options.no_baselines)
    ]
    found = work_off(store, jobs, "coarse pass", options)
    result: dict[Cell, dict[str, float]] = {cell: {} for cell in cells}
    for job, data in found.items():
        result[job.cell][job.arm.name] = data["capacity"]
    return result


def kept(cell: Cell, coarse: dict[str, float], single: str, which: str) -> list[Arm]:
    """Who goes on to the fine pass. single: the fixed budget that does best over all cells."""

    def best(arms: list[Arm], count: int) -> list[Arm]:
        able = [arm for arm in arms if coarse.get(arm.name, 0) > 0]
        return sorted(able, key=lambda arm: -coarse[arm.name])[:count]

    if which == "quick":
        return [*best(FIXED, 2), NIYAMA, FLAGSHIP]
    priority = best(FIXED_PRIORITY, 2) if cell.traffic == "mixed-classes" else []
    always = best([arm for arm in FIXED if arm.name in (single, default_arm(cell))], 2)
    fixed = best(FIXED, KEPT_FIXED)
    fixed += [arm for arm in always if arm not in fixed]
    return [*fixed, *priority, *best(BASELINES, KEPT_BASELINES), NIYAMA, FLAGSHIP]


def bound_pass(
    store: Store, cells: list[Cell], bench: Bench, options: argparse.Namespace
) -> dict[Cell, float]:
    """Requests per second that no scheduler could exceed: the mean over the seeds."""
    jobs = [
        Job("bound", cell, FLAGSHIP, seed, bench.requests, round(first_guess(cell), 4))
        for cell in cells
        for seed in bench.seeds
    ]
    found: dict[Cell, list[float]] = {}
    for job, data in work_off(store, jobs, "bound", options).items():
        found.setdefault(job.cell, []).append(data["bound"])
    return {cell: sum(rates) / len(rates) for cell, rates in found.items()}


Fine = dict[Cell, dict[str, dict[int, dict[str, Any]]]]


def fine_pass(
    store: Store,
    cells: list[Cell],
    coarse: dict[Cell, dict[str, float]],
    bench: Bench,
    options: argparse.Namespace,
) -> Fine:
    """Capacity within 2 %, per seed, of those that are kept."""
    single = best_single(coarse)
    jobs = [
        Job("fine", cell, arm, seed, bench.requests, round(coarse[cell][arm.name] or first_guess(cell), 4))
        for cell in cells
        for arm in kept(cell, coarse[cell], single, options.set)
        for seed in bench.seeds
    ]
    result: Fine = {cell: {} for cell in cells}
    for job, data in work_off(store, jobs, "fine pass", options).items():
        result[job.cell].setdefault(job.arm.name, {})[job.seed] = data
    return result


def overload_pass(
    store: Store, cells: list[Cell], fine: Fine, bench: Bench, options: argparse.Namespace
) -> dict[Cell, dict[str, float]]:
    """Share of failed requests of the best fixed budget and of ours, at the load where the former fails 5 %."""
    from policies.table import best_fixed, mean_capacity

    by_name = {arm.name: arm for arm in [*FIXED, *FIXED_PRIORITY, FLAGSHIP]}
    searches = []
    for cell in cells:
        name = best_fixed(fine[cell])
        if name is not None:
            start = round(1.1 * mean_capacity(fine[cell][name]), 4)
            searches += [
                Job("overload", cell, by_name[name], seed, bench.requests, start) for seed in bench.seeds
            ]
    loads = work_off(store, searches, "load of 5 % failures", options)
    jobs = [
        Job("failed", job.cell, arm, job.seed, job.requests, round(data["capacity"], 4))
        for job, data in loads.items()
        if data["capacity"] > 0
        for arm in (job.arm, FLAGSHIP)
    ]
    gathered: dict[Cell, dict[str, list[float]]] = {}
    for job, data in work_off(store, jobs, "failures at that load", options).items():
        side = "ours" if job.arm.name == FLAGSHIP.name else "fixed"
        gathered.setdefault(job.cell, {}).setdefault(side, []).append(data["failed"])
    return {cell: {side: sum(v) / len(v) for side, v in sides.items()} for cell, sides in gathered.items()}


if __name__ == "__main__":
    main()
