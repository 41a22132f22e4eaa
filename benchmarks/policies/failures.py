"""How many requests fail at a few loads around capacity: ours, every fixed budget, niyama.

    python -m policies.failures [--set balanced] [--split train] [--seeds 3] [--requests 300] [--shares 0.6 0.8 1 1.2]

A capacity rests on the one request in a hundred that decides it; counts at given loads settle more with shorter runs.
The loads are shares of the one at which 95 % of the requests are fluid under ``sarathi``, on the first training seed.
The best fixed budget of a cell is the one with the fewest failures over all its loads. Finished units are kept with
those of the bench.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from publish import publish

from policies.__main__ import add_cells, chosen, note_use, parse, work_off
from policies.arms import FIXED, FLAGSHIP, NIYAMA, default_arm
from policies.cells import TEST_SEED
from policies.table import geometric
from policies.work import Job, Store, code_digest, first_guess

if TYPE_CHECKING:
    import argparse

    from policies.arms import Arm
    from policies.cells import Cell

ARMS = [*FIXED, NIYAMA, FLAGSHIP]

Counts = dict["Cell", dict[str, list[int]]]
"""Failed requests of all seeds by cell and arm, a number a load."""


def main() -> None:
    """The command."""
    options = parse(add_options)
    cells = chosen(options)
    if options.split == "test":
        note_use(options)
    counts = measure(Store(options.out), cells, ARMS, options)
    summary = {
        "set": f"{options.set}, chosen" if options.cells else options.set,
        "split": options.split,
        "requests": options.requests,
        "seeds": options.seeds,
        "shares": options.shares,
        "code": code_digest(),
        "rows": [row(cell, found) for cell, found in counts.items()],
    }
    which = "chosen" if options.cells else options.set
    publish(f"failures-{which}-{options.split}", summary, markdown(summary))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this bench alone; three seeds of 300 requests unless told otherwise."""
    add_cells(parser)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.6, 0.8, 1.0, 1.2], metavar="SHARE")
    parser.set_defaults(requests=300)


def measure(store: Store, cells: list[Cell], arms: list[Arm], options: argparse.Namespace) -> Counts:
    """Failed requests of every arm at every load."""
    first = TEST_SEED if options.split == "test" else 0
    searches = [
        Job("overload", cell, FLAGSHIP, 0, options.requests, round(first_guess(cell), 4)) for cell in cells
    ]
    loads = {
        job.cell: data["capacity"]
        for job, data in work_off(store, searches, "load of 5 % failures", options).items()
    }
    jobs = {
        Job("failed", cell, arm, first + seed, options.requests, round(share * loads[cell], 4)): place
        for cell in cells
        if loads[cell] > 0
        for place, share in enumerate(options.shares)
        for arm in arms
        for seed in range(options.seeds)
    }
    counts: Counts = {}
    for job, data in work_off(store, list(jobs), "failures", options).items():
        mine = counts.setdefault(job.cell, {}).setdefault(job.arm.name, [0] * len(options.shares))
        mine[jobs[job]] += round(data["failed"] * options.requests)
    return {cell: counts[cell] for cell in cells if cell in counts}


def row(cell: Cell, found: dict[str, list[int]]) -> dict[str, Any]:
    """One cell's counts."""
    best = min((arm.name for arm in FIXED), key=lambda name: sum(found[name]))
    return {
        "cell": cell.name,
        "best": best,
        "ours": found[FLAGSHIP.name],
        "best_fixed": found[best],
        "default": found[default_arm(cell)],
        "niyama": found[NIYAMA.name],
        "all": found,
    }


def over(some: list[int], others: list[int]) -> float:
    """Failures over failures, all loads together; half a request on both sides, so that none have a ratio too."""
    return (sum(some) + 0.5) / (sum(others) + 0.5)


def markdown(summary: dict[str, Any]) -> str:
    """The table for people."""
    rows, shares = summary["rows"], summary["shares"]
    names = ("ours", "best_fixed", "default", "niyama")
    counts = lambda values: ", ".join(map(str, values))  # noqa: E731
    judged = summary["requests"] * summary["seeds"]
    totals = [counts(map(sum, zip(*(one[name] for one in rows), strict=True))) for name in names]
    ratios = [geometric(over(one["ours"], one[name]) for one in rows) for name in names[1:]]
    lines = [
        f"### Requests that are not fluid, {summary['set']} cells, {summary['split']} split",
        "",
        f"Of {judged} ({summary['seeds']} seeds), at {counts(shares)} of the load at which 95 % are fluid under "
        "`sarathi`.",
        "",
        "| cell | `sarathi` | best fixed budget | vLLM's default | `niyama` |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {one['cell']} | {counts(one['ours'])} | {counts(one['best_fixed'])} ({one['best']}) | "
            f"{counts(one['default'])} | {counts(one['niyama'])} |"
            for one in rows
        ),
        "| all | " + " | ".join(totals) + " |",
        "",
        "Failures of `sarathi` over theirs, geometric mean over the cells, all loads together: best fixed budget of "
        f"each cell {ratios[0]:.2f}, default {ratios[1]:.2f}, `niyama` {ratios[2]:.2f}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
