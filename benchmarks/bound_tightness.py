"""How far the capacity bound is above the truth: random small instances against an exhaustive search.

Every instance is drawn from a seed (ranges: tests/exact_schedule.py) and none is left out but those without a largest
factor: all may arrive at once (``free``) or none can be fluid alone (``never``), which are counted. gap = bound /
largest feasible factor - 1, over the range of factors in which all requests can be fluid::

    python benchmarks/bound_tightness.py [--instances 200] [--seed 0] [--seconds 100] [--workers 2] [--out FILE]

With --out (JSON lines) it goes on where an earlier run stopped; --seconds stops it early. The
search takes minutes for a few instances.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from math import inf
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from exact_schedule import MACHINES, WORKLOADS, Exhaustive, draw, largest_factor

from sarathi_plugin.search.bound import capacity_bound, obstacle

BATCH = 10
"""Instances measured between two looks at the clock."""

ABOVE = (1.002, 1.05, 1.5)
"""No schedule may be found at the bound times any of these."""


def measure(seed: int, number: int) -> dict[str, Any]:
    """One instance: its bound, with and without the search of neighbours, and what can be reached."""
    instance = draw(
        np.random.default_rng([seed, number]),
        WORKLOADS[number % len(WORKLOADS)],
        MACHINES[number // len(WORKLOADS) % len(MACHINES)],
    )
    jobs, cost = instance.jobs, instance.cost
    row: dict[str, Any] = {"number": number, "workload": instance.workload, "machine": instance.machine}
    started = time.process_time()
    bound = capacity_bound(jobs, cost, share=1)
    row |= {"bound": bound, "seconds": round(time.process_time() - started, 3)}
    if bound == 0:
        return row | {"status": "never"}
    exhaustive = Exhaustive(instance)
    if bound == inf and exhaustive.possible(1e9):
        return row | {"status": "free"}
    reached = largest_factor(instance, min(bound, 1e4))
    if reached == 0 and not exhaustive.possible(1e-6):
        return row | {"status": "never"}
    windows = capacity_bound(jobs, cost, share=1, search=False)
    wrong = bound < inf and any(exhaustive.possible(bound * above) for above in ABOVE)
    binding = obstacle(instance.compressed(bound * ABOVE[0]), cost, share=1) if bound < inf else "none"
    ratio, plain = (top / reached - 1 if reached else inf for top in (bound, windows))
    return row | {"status": "wrong" if wrong else "counted", "reached": reached, "gap": ratio, "windows_gap": plain,
                  "binding": binding}  # fmt: skip


def count(rows: list[dict[str, Any]]) -> int:
    """How many instances have a largest factor."""
    return sum(row["status"] in {"counted", "wrong"} for row in rows)


def quantile(values: list[float], share: float) -> float:
    """An order statistic: exact with infinities among the values."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def describe(name: str, rows: list[dict[str, Any]]) -> str:
    """One line of figures about some instances."""
    columns = []
    for key in ("gap", "windows_gap"):
        gaps = [row[key] for row in rows]
        shares = [f"{quantile(gaps, share):8.1%}" for share in (0.5, 0.9, 1.0)]
        columns.append(" ".join(shares))
    return f"{name:10s} {len(rows):5d}   " + "   ".join(columns)


def report(rows: list[dict[str, Any]]) -> None:
    """Print the figures of all instances measured."""
    counted = [row for row in rows if row["status"] in {"counted", "wrong"}]
    print("instances ", dict(Counter(row["status"] for row in rows)))
    print("                    gap of the bound                windows alone")
    print("instances  count      median      P90      max     median      P90      max")
    if not counted:
        return
    print(describe("all", counted))
    for key, names in (("machine", MACHINES), ("workload", WORKLOADS)):
        for name in names:
            some = [row for row in counted if row[key] == name]
            if some:
                print(describe(name, some))
    print(
        "binding   ",
        {k: f"{n / len(counted):.0%}" for k, n in Counter(r["binding"] for r in counted).items()},
    )
    print(f"CPU per bound: {sum(row['seconds'] for row in rows) / len(rows):.2f} s")


def main() -> None:
    """Measure instances until enough of them count, and report."""
    parser = argparse.ArgumentParser(description="Gap between the capacity bound and an exhaustive search.")
    parser.add_argument("--instances", type=int, default=200, help="instances with a largest factor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=inf, help="stop after so many")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, help="JSON lines, one per instance; read first when there")
    arguments = parser.parse_args()
    rows = []
    if arguments.out and arguments.out.exists():
        rows = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    stop = time.monotonic() + arguments.seconds
    with Pool(arguments.workers) as pool:
        while count(rows) < arguments.instances and time.monotonic() < stop:
            numbers = range(len(rows), len(rows) + BATCH)
            found = pool.starmap(measure, [(arguments.seed, number) for number in numbers], chunksize=1)
            rows += found
            if arguments.out:
                with arguments.out.open("a") as file:
                    file.writelines(json.dumps(row) + "\n" for row in found)
    report(rows)
    if any(row["status"] == "wrong" for row in rows):
        sys.exit("The bound is wrong: a schedule exists above it.")


if __name__ == "__main__":
    main()
