"""What each ingredient of ``sarathi`` is worth: requests that are not fluid without it, against those with it.

    python -m policies.ablation [--set balanced] [--seeds 3] [--requests 300] [--shares 0.6 0.8 1 1.2] [--only NAME ...]

The training cells and seeds of the bench, and the loads of the counts of failures (see ``failures.py``): a capacity
rests on the one request in a hundred that decides it, counts settle more with shorter runs. Finished units are kept
with those of the bench. A variant is a line in ``VARIANTS``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from publish import publish

from policies.__main__ import chosen, parse
from policies.arms import FLAGSHIP, OURS, Arm
from policies.failures import add_options, measure, over
from policies.table import geometric
from policies.work import Store, code_digest
from sarathi_plugin.config import Settings
from sarathi_plugin.policies.sarathi import Sarathi

if TYPE_CHECKING:
    import argparse

    from policies.failures import Counts

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
    "no prefix hits": {"prefix_hits": False},
}
"""Settings of the policy by what they take away."""


def main() -> None:
    """The command."""
    options = parse(add_only)
    if options.split != "train":
        sys.exit("This bench has no test split.")
    names = options.only or list(VARIANTS)
    arms = [FLAGSHIP, *map(variant_arm, names)]
    summary = {
        "set": f"{options.set}, chosen" if options.cells else options.set,
        "requests": options.requests,
        "seeds": options.seeds,
        "shares": options.shares,
        "code": code_digest(),
        **summarise(measure(Store(options.out), chosen(options), arms, options), names),
    }
    publish(f"ablation-{'chosen' if options.cells else options.set}", summary, markdown(summary))


def add_only(parser: argparse.ArgumentParser) -> None:
    """The option of this bench alone, besides those of the counts."""
    add_options(parser)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, metavar="NAME")


def variant_arm(name: str) -> Arm:
    """The flagship without something. Raises ConfigError when its settings are no longer known."""
    settings = VARIANTS[name]
    Sarathi.from_settings(Settings(scheduler=OURS, policy=settings))
    return Arm(f"{OURS}-{name.replace(' ', '-')}", OURS, policy=settings)


def summarise(counts: Counts, names: list[str]) -> dict[str, Any]:
    """Failures by load of the full policy and of every variant, and what the variant has more than it, by cell."""
    return {
        "ours": totals(counts, FLAGSHIP.name),
        "cells": {cell.name: found[FLAGSHIP.name] for cell, found in counts.items()},
        "variants": [variant(counts, name) for name in names],
    }


def totals(counts: Counts, arm: str) -> list[int]:
    """Failures by load, all cells together."""
    return [sum(one) for one in zip(*(found[arm] for found in counts.values()), strict=True)]


def variant(counts: Counts, name: str) -> dict[str, Any]:
    """One line of the table."""
    arm = variant_arm(name).name
    ratios = {cell.name: over(found[arm], found[FLAGSHIP.name]) for cell, found in counts.items()}
    by_ratio = sorted(ratios, key=ratios.__getitem__)
    return {
        "variant": name,
        "settings": VARIANTS[name],
        "failed": totals(counts, arm),
        "geometric_mean": geometric(ratios.values()),
        "worst": (by_ratio[-1], ratios[by_ratio[-1]]),
        "best": (by_ratio[0], ratios[by_ratio[0]]),
        "cells": {cell.name: found[arm] for cell, found in counts.items()},
    }


def markdown(summary: dict[str, Any]) -> str:
    """The table for people, what costs most to leave out first."""
    counts = lambda values: ", ".join(map(str, values))  # noqa: E731
    show = lambda extreme: f"{extreme[1]:.2f} ({extreme[0]})"  # noqa: E731
    cells = len(summary["cells"])
    lines = [
        f"### Ingredients of sarathi, {summary['set']} cells",
        "",
        f"Requests that are not fluid, of {cells} cells x {summary['seeds']} seeds x {summary['requests']}, at "
        f"{counts(summary['shares'])} of the load at which 95 % are fluid under the full policy; and all of them over "
        "those of the full policy. Above 1: the ingredient earns its place.",
        "",
        "| without | not fluid | geometric mean | most in | least in |",
        "| --- | --- | --- | --- | --- |",
        f"| nothing | {counts(summary['ours'])} | | | |",
    ]
    lines += [
        f"| {row['variant']} | {counts(row['failed'])} | {row['geometric_mean']:.2f} | {show(row['worst'])} | "
        f"{show(row['best'])} |"
        for row in sorted(summary["variants"], key=lambda row: -row["geometric_mean"])
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
