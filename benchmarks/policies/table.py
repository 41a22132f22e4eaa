"""From capacities to the table of the bench."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.arms import BASELINES, FIXED, FLAGSHIP, NIYAMA, default_arm

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policies.cells import Cell

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t for a two-sided 95 % interval, by degrees of freedom."""

FIXED_NAMES = {arm.name for arm in FIXED}
BASELINE_NAMES = {arm.name for arm in BASELINES}
Seeds = dict[int, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Bench:
    """What was run."""

    set: str
    split: str
    requests: int
    seeds: tuple[int, ...]


def mean_capacity(found: Seeds) -> float:
    """Mean over seeds, requests per second."""
    return statistics.fmean(data["capacity"] for data in found.values())


def best_fixed(found: dict[str, Seeds]) -> str | None:
    """The fixed budget with the highest mean capacity (not those with vLLM's priorities); None when none has any."""
    able = {n: mean_capacity(s) for n, s in found.items() if n in FIXED_NAMES and mean_capacity(s) > 0}
    return max(able, key=lambda name: able[name]) if able else None


def paired(ours: Seeds, theirs: Seeds) -> dict[str, float | None] | None:
    """Ratio of capacities seed by seed: geometric mean and 95 % interval (None of one seed).

    None when theirs has none.
    """
    logs = [
        math.log(ours[seed]["capacity"] / theirs[seed]["capacity"])
        for seed in ours
        if theirs[seed]["capacity"] > 0 and ours[seed]["capacity"] > 0
    ]
    return None if len(logs) < len(ours) else interval_of(logs)


def interval_of(logs: Sequence[float]) -> dict[str, float | None]:
    """Of logarithms of paired ratios, at least one and at most ten: geometric mean, 95 % interval (None of one)."""
    mean = statistics.fmean(logs)
    if len(logs) == 1:
        return {"ratio": round(math.exp(mean), 4), "low": None, "high": None}
    half = T_975[len(logs) - 1] * statistics.stdev(logs) / len(logs) ** 0.5
    return {
        "ratio": round(math.exp(mean), 4),
        "low": round(math.exp(mean - half), 4),
        "high": round(math.exp(mean + half), 4),
    }


def summarise(
    bench: Bench,
    cells: list[Cell],
    coarse: dict[Cell, dict[str, float]],
    fine: dict[Cell, dict[str, Seeds]],
    overload: dict[Cell, dict[str, float]],
    bounds: dict[Cell, float],
) -> dict[str, Any]:
    """Everything as plain data."""
    single = best_single(coarse)
    rows = [
        row_of(cell, coarse[cell], fine[cell], overload.get(cell, {}), bounds[cell], single) for cell in cells
    ]
    able = [row for row in rows if row["versus_best_fixed"]]

    def mean_of(key: str) -> float | None:
        return geometric(row[key]["ratio"] for row in able if row[key])

    return {
        "set": bench.set,
        "split": bench.split,
        "requests": bench.requests,
        "seeds": list(bench.seeds),
        "cells": rows,
        "geometric_mean": {
            "versus_best_fixed": mean_of("versus_best_fixed"),
            "versus_default": mean_of("versus_default"),
            "versus_best_single": mean_of("versus_best_single"),
            "versus_best_priority": mean_of("versus_best_priority"),
            "versus_niyama": mean_of("versus_niyama"),
            "versus_best_baseline": mean_of("versus_best_baseline"),
            "bound_over_ours": geometric(
                row["bound"] / row["ours"] for row in rows if row["ours"] and math.isfinite(row["bound"])
            ),
            "failures": geometric(
                max(row["overload"]["ours"], 0.5 / bench.requests) / row["overload"]["fixed"]
                for row in able
                if row["overload"].get("fixed")
            ),
        },
        "best_single": single,
        "worst": min(able, key=lambda row: row["versus_best_fixed"]["ratio"])["cell"] if able else None,
        "no_fixed_capacity": [row["cell"] for row in rows if not row["versus_best_fixed"]],
    }


def row_of(
    cell: Cell,
    coarse: dict[str, float],
    fine: dict[str, Seeds],
    overload: dict[str, float],
    bound: float,
    single: str,
) -> dict[str, Any]:
    """One cell."""
    best = best_fixed(fine)
    ours = fine[FLAGSHIP.name]
    against = lambda name: paired(ours, fine[name]) if name in fine else None  # noqa: E731
    baseline = max(
        sorted(BASELINE_NAMES & fine.keys()), key=lambda name: mean_capacity(fine[name]), default=""
    )
    priority = [name for name in fine if name.endswith("-priority")]
    best_priority = max(priority, key=lambda name: mean_capacity(fine[name])) if priority else None
    return {
        "cell": cell.name,
        "test_only": cell.test_only,
        "best_fixed": best,
        "best_fixed_capacity": round(mean_capacity(fine[best]), 4) if best else 0.0,
        "ours": round(mean_capacity(ours), 4),
        "versus_best_fixed": against(best) if best else None,
        "versus_best_priority": against(best_priority) if best_priority else None,
        "versus_default": against(default_arm(cell)),
        "versus_best_single": against(single),
        "versus_niyama": against(NIYAMA.name),
        "best_baseline": baseline,
        "versus_best_baseline": against(baseline),
        "coarse": {name: round(rate, 4) for name, rate in coarse.items()},
        "fine": {name: [round(s["capacity"], 4) for s in found.values()] for name, found in fine.items()},
        "limit": next(iter(ours.values()))["limit"],
        "bound": round(bound, 4),
        "overload": {side: round(share, 4) for side, share in overload.items()},
    }


def best_single(coarse: dict[Cell, dict[str, float]]) -> str:
    """The one fixed budget that does best over all cells: most cells with capacity, then the geometric mean."""

    def worth(name: str) -> tuple[int, float]:
        rates = [found[name] for found in coarse.values() if found.get(name, 0) > 0]
        return len(rates), geometric(rates) or 0.0

    return max(sorted(FIXED_NAMES), key=worth)


def geometric(values: Iterable[float]) -> float | None:
    """Geometric mean, None of nothing."""
    found = list(values)
    return round(math.exp(statistics.fmean(map(math.log, found))), 4) if found else None


def markdown(summary: dict[str, Any]) -> str:
    """The table for people."""
    lines = [
        f"### Fluid capacity, {summary['set']} cells, {summary['split']} split",
        "",
        f"{summary['requests']} requests x {len(summary['seeds'])} seeds, requests per second, bisected to 2 %. "
        "Ratio: paired over seeds, with its 95 % interval.",
        "",
        "| cell | best fixed | its capacity | sarathi | ratio | interval | default | priority | niyama | "
        "baseline | failures at 5 % | bound | limit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in summary["cells"]:
        versus, over = row["versus_best_fixed"], row["overload"]
        ratio = lambda key: f"{row[key]['ratio']:.3f}" if row[key] else "-"  # noqa: E731, B023
        interval = (
            f"{versus['low']:.2f} to {versus['high']:.2f}" if versus and versus["low"] is not None else "-"
        )
        lines.append(
            f"| {row['cell']} | {row['best_fixed'] or 'none'} | {row['best_fixed_capacity']:.3f} | {row['ours']:.3f} | "
            f"{ratio('versus_best_fixed')} | {interval} | {ratio('versus_default')} | "
            f"{ratio('versus_best_priority')} | {ratio('versus_niyama')} | "
            f"{ratio('versus_best_baseline')} ({row['best_baseline'] or 'none'}) | "
            + (f"{over['ours']:.1%} ({over['fixed']:.1%}) | " if over else "- | ")
            + f"{row['bound']:.3f} | {row['limit']} |"
        )
    means = summary["geometric_mean"]
    lines += [
        "",
        "Columns default, priority, niyama, baseline (the best other one): sarathi's capacity over theirs. "
        "Geometric means: against the best fixed "
        f"budget of each cell {means['versus_best_fixed']}; against the best single budget "
        f"({summary['best_single']}) {means['versus_best_single']}; against vLLM's default "
        f"{means['versus_default']}; in mixed cells against the best budget with vLLM's priorities "
        f"{means['versus_best_priority']}; against niyama {means['versus_niyama']}; against the best "
        f"other baseline {means['versus_best_baseline']}; failed requests over the best "
        f"fixed budget's {means['failures']}; the bound over sarathi {means['bound_over_ours']}. "
        f"Worst cell: {summary['worst']}.",
    ]
    if summary["no_fixed_capacity"]:
        lines.append(f"No fixed budget has any capacity in: {', '.join(summary['no_fixed_capacity'])}.")
    return "\n".join(lines) + "\n"
