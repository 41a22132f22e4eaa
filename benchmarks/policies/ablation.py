"""What each ingredient of ``sarathi`` is worth: fluid capacity without it, over fluid capacity with it.

    python -m policies.ablation [--set quick|balanced|full] [--seeds 3] [--requests 1000] [--only NAME ...]

The cells, seeds and criteria of the bench, on its training split; finished units are kept in the same place, those of
the full policy are the bench's own. A variant is a line in ``VARIANTS``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from publish import publish

from policies.__main__ import parse, work_off
from policies.arms import FLAGSHIP, OURS, Arm
from policies.cells import SETS
from policies.table import Seeds, geometric, mean_capacity, paired
from policies.work import COARSE_REQUESTS, Job, Store, code_digest, first_guess
from sarathi_plugin.config import Settings
from sarathi_plugin.policies.sarathi import Sarathi

if TYPE_CHECKING:
    import argparse

    from policies.cells import Cell

VARIANTS: dict[str, dict[str, Any]] = {
    "order by deadline": {"order": "deadline"},
    "order by work": {"order": "shortest"},
    "order by arrival": {"order": "arrival"},
    "hardly any look-ahead": {"look_ahead": 0.001},
    "look ahead over all work": {"look_ahead": 1.0},
    "no tiles": {"tiles": False},
    "no stall cap": {"stall_cap": 1e6},
    "no idle cap": {"idle_cap": 1e6},
    "gap instead of deadlines": {"slo": "gap"},
    "no saving": {"saving": False},
    "no memory kept free": {"headroom": 0.0},
    "no caution while cold": {"cold_chunk": 8192},
    "no overtaking": {"overtaking": False},
    "no ageing": {"ageing": 0},
}
"""Settings of the policy by what they take away."""

Found = dict["Cell", dict[str, Seeds]]


def main() -> None:
    """The command."""
    options = parse(add_only)
    if options.split != "train":
        sys.exit("This bench has no test split.")
    names = options.only or list(VARIANTS)
    arms = [FLAGSHIP, *(variant_arm(name) for name in names)]
    cells = [cell for cell in SETS[options.set] if not cell.test_only]
    summary = {
        "set": options.set,
        "requests": options.requests,
        "seeds": list(range(options.seeds)),
        "code": code_digest(),
        **summarise(measure(Store(options.out), cells, arms, options), names),
    }
    publish(f"ablation-{options.set}", summary, markdown(summary))


def add_only(parser: argparse.ArgumentParser) -> None:
    """The option of this bench alone."""
    parser.add_argument("--only", nargs="*", choices=VARIANTS, metavar="NAME")


def variant_arm(name: str) -> Arm:
    """The flagship without something. Raises ConfigError when its settings are no longer known."""
    settings = VARIANTS[name]
    Sarathi.from_settings(Settings(scheduler=OURS, policy=settings))
    return Arm(f"{OURS}-{name.replace(' ', '-')}", OURS, policy=settings)


def measure(store: Store, cells: list[Cell], arms: list[Arm], options: argparse.Namespace) -> Found:
    """Capacity within 2 % of every arm, by cell, arm and seed; searches start from a coarse one of the flagship."""
    coarse = [
        Job("coarse", cell, FLAGSHIP, 0, min(COARSE_REQUESTS, options.requests), round(first_guess(cell), 4))
        for cell in cells
    ]
    start = {
        job.cell: data["capacity"] for job, data in work_off(store, coarse, "coarse pass", options).items()
    }
    jobs = [
        Job("fine", cell, arm, seed, options.requests, round(start[cell] or first_guess(cell), 4))
        for cell in cells
        for arm in arms
        for seed in range(options.seeds)
    ]
    found: Found = {cell: {} for cell in cells}
    for job, data in work_off(store, jobs, "fine pass", options).items():
        found[job.cell].setdefault(job.arm.name, {})[job.seed] = data
    return found


def summarise(found: Found, names: list[str]) -> dict[str, Any]:
    """Ratios to the flagship, paired over seeds, by variant; the geometric mean is over cells where both can serve."""
    variants = []
    for name in names:
        arm = variant_arm(name)
        ratios = {cell: paired(seeds[arm.name], seeds[FLAGSHIP.name]) for cell, seeds in found.items()}
        able = {cell.name: ratio["ratio"] for cell, ratio in ratios.items() if ratio}
        variants.append(
            {
                "variant": name,
                "settings": VARIANTS[name],
                "geometric_mean": geometric(able.values()),
                "best": max(able.items(), key=lambda item: item[1], default=None),
                "worst": min(able.items(), key=lambda item: item[1], default=None),
                "none": [cell.name for cell in found if mean_capacity(found[cell][arm.name]) == 0],
                "cells": {cell.name: ratio for cell, ratio in ratios.items()},
            }
        )
    ours = {cell.name: round(mean_capacity(seeds[FLAGSHIP.name]), 4) for cell, seeds in found.items()}
    return {"capacity": ours, "variants": variants}


def markdown(summary: dict[str, Any]) -> str:
    """The table for people, what costs most to leave out first."""
    lines = [
        f"### Ingredients of sarathi, {summary['set']} cells",
        "",
        f"Fluid capacity without an ingredient over that of the full policy: {summary['requests']} requests x "
        f"{len(summary['seeds'])} seeds, paired, bisected to 2 %. Below 1: the ingredient earns its place.",
        "",
        "| without | geometric mean | worst cell | best cell | no capacity in |",
        "| --- | --- | --- | --- | --- |",
    ]
    show = lambda extreme: f"{extreme[1]:.3f} ({extreme[0]})" if extreme else "-"  # noqa: E731
    for row in sorted(summary["variants"], key=lambda row: row["geometric_mean"] or 0):
        mean = f"{row['geometric_mean']:.3f}" if row["geometric_mean"] else "-"
        lines.append(
            f"| {row['variant']} | {mean} | {show(row['worst'])} | {show(row['best'])} | "
            f"{', '.join(row['none']) or '-'} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
