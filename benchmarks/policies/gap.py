"""Gap mode: does ``sarathi`` with ``slo: gap`` keep P99 TBT within D_d, and what do first tokens pay for it?

    python -m policies.gap [--set quick|balanced|full] [--seeds 3] [--fresh 10] [--requests 1000]
        [--shares 0.6 0.8]

Per cell, the highest load at which P99 TBT (per token, over all tokens of the run, of every class) is at most D_d and
the median scheduling delay at most 2 s is sought for every fixed budget, and where none has any for the policies. At
shares of the best one's load, every budget and the policies run on every seed. The best fixed budget of a load is the
one with the least product of TTFT P50 and P99 among those that hold on every seed. Whoever is the best of seven on some
seeds owes part of that to them, so it and gap mode then run on fresh ones. Training split; finished units are kept with
those of the bench.
"""

from __future__ import annotations

import math
import statistics
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from publish import publish

from policies.__main__ import parse, work_off
from policies.arms import FIXED, NIYAMA, OURS, Arm
from policies.cells import SETS
from policies.gap_work import GapJob, at_load, run
from policies.table import geometric, interval_of
from policies.work import Store, code_digest

if TYPE_CHECKING:
    import argparse

    from policies.cells import Cell

GAP = Arm(f"{OURS}-gap", OURS, policy={"slo": "gap"})
FCFS_GAP = Arm(f"{OURS}-gap-arrival", OURS, policy={"slo": "gap", "order": "arrival"})
OTHERS = [GAP, FCFS_GAP, Arm("sarathi-static", "sarathi-static"), NIYAMA]
ARMS = [*FIXED, *OTHERS]
FIXED_NAMES = {arm.name for arm in FIXED}
TOLERANCE = 1.02
"""TTFT P50 and P99 may be so many times those of the best fixed budget."""

Runs = list[dict[str, Any]]


def main() -> None:
    """The command."""
    options = parse(add_shares)
    if options.split != "train":
        sys.exit("This bench has no test split.")
    cells = [cell for cell in SETS[options.set] if not cell.test_only]
    summary = {
        "set": options.set,
        "requests": options.requests,
        "seeds": list(range(options.seeds)),
        "fresh": options.fresh,
        "code": code_digest(),
        "rows": measure(Store(options.out), cells, options),
    }
    publish(f"gap-{options.set}", summary, markdown(summary))


def add_shares(parser: argparse.ArgumentParser) -> None:
    """The options of this bench alone."""
    parser.add_argument("--shares", nargs="+", type=float, default=[0.6, 0.8])
    parser.add_argument("--fresh", type=int, choices=range(11), default=10, metavar="0..10")


def measure(store: Store, cells: list[Cell], options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every cell and share."""
    capacity: dict[Cell, dict[str, float]] = {cell: {} for cell in cells}
    for arms in (FIXED, OTHERS):
        searches = [
            GapJob("gap-capacity", cell, arm, 0, options.requests, 0.0)
            for cell in cells
            if not any(capacity[cell].values())
            for arm in arms
        ]
        for job, data in work_off(store, searches, "gap capacity", options, run).items():
            capacity[job.cell][job.arm.name] = data["capacity"]
    wanted: dict[tuple[Cell, float], list[GapJob]] = {}
    for cell in cells:
        base, like = base_load(capacity[cell]), GapJob("gap-capacity", cell, GAP, 0, options.requests, 0.0)
        for share in options.shares if base else ():
            wanted[cell, share] = [
                at_load(like, arm, seed, share * base) for arm in ARMS for seed in range(options.seeds)
            ]
    jobs = list(dict.fromkeys(job for some in wanted.values() for job in some))
    found = work_off(store, jobs, "figures", options, run)
    rows = []
    for (cell, share), some in wanted.items():
        runs: dict[str, Runs] = {}
        for job in some:
            runs.setdefault(job.arm.name, []).append(found[job])
        rates = {name: round(rate, 4) for name, rate in capacity[cell].items()}
        rows.append(
            {"cell": cell.name, "share": share, "load": some[0].load, "capacity": rates, **compare(runs)}
        )
    again = {
        at: [
            [replace(wanted[at][0], arm=arm, seed=options.seeds + more) for more in range(options.fresh)]
            for arm in (GAP, *[arm for arm in FIXED if arm.name == row["best_fixed"]])
        ]
        for at, row in zip(wanted, rows, strict=True)
        if row["best_fixed"]
    }
    jobs = [job for pair in again.values() for side in pair for job in side]
    found = work_off(store, jobs, "fresh seeds", options, run)
    for at, row in zip(wanted, rows, strict=True):
        if options.fresh and at in again:
            row["fresh"] = on_fresh(*([found[job] for job in side] for side in again[at]))
    rows += [
        {"cell": cell.name, "verdict": "nobody holds"} for cell in cells if not base_load(capacity[cell])
    ]
    return rows


def base_load(capacity: dict[str, float]) -> float:
    """The load that shares are of: the best fixed budget's, where none has any the best policy's."""
    fixed = max(rate for name, rate in capacity.items() if name in FIXED_NAMES)
    return fixed or max(capacity.values())


def compare(runs: dict[str, Runs]) -> dict[str, Any]:
    """Our runs and the policies' against the best fixed budget that holds, all at one load."""
    holds = {name: all(data["holds"] for data in some) for name, some in runs.items()}
    able = [name for name in runs if name in FIXED_NAMES and holds[name]]
    best = min(
        able, key=lambda name: mean(runs[name], "ttft_p50_ms") * mean(runs[name], "ttft_p99_ms"), default=None
    )
    against = {
        arm.name: {
            "holds": holds[arm.name],
            "tbt_p99_over_target": max(data["tbt_p99_over_target"] for data in runs[arm.name]),
            **(
                {key: ratio(runs[arm.name], runs[best], key) for key in ("ttft_p50_ms", "ttft_p99_ms")}
                if best
                else {}
            ),
        }
        for arm in OTHERS
    }
    fixed = {key: round(mean(runs[best], key), 2) for key in ("ttft_p50_ms", "ttft_p99_ms")} if best else {}
    return {
        "best_fixed": best,
        **fixed,
        "against_best_fixed": against,
        "fixed_that_hold": able,
        "verdict": verdict(against[GAP.name], anybody=any(holds.values())),
    }


def on_fresh(ours: Runs, theirs: Runs) -> dict[str, Any]:
    """Ours and the budget that was best on other seeds: how often each holds, longest gaps, TTFT of ours over its."""
    return {
        "holds": sum(data["holds"] for data in ours),
        "fixed_holds": sum(data["holds"] for data in theirs),
        "tbt_p99_over_target": max(data["tbt_p99_over_target"] for data in ours),
        "longest_gap_ms": max(data["longest_gap_ms"] for data in ours),
        "fixed_longest_gap_ms": max(data["longest_gap_ms"] for data in theirs),
        **{
            key: interval_of([math.log(a[key] / b[key]) for a, b in zip(ours, theirs, strict=True)])
            for key in ("ttft_p50_ms", "ttft_p99_ms")
        },
    }


def mean(runs: Runs, key: str) -> float:
    """Mean over seeds."""
    return statistics.fmean(data[key] for data in runs)


def ratio(ours: Runs, theirs: Runs, key: str) -> float | None:
    """Geometric mean over seeds of ours over theirs."""
    return geometric(a[key] / b[key] for a, b in zip(ours, theirs, strict=True))


def verdict(ours: dict[str, Any], *, anybody: bool) -> str:
    """What is to be said of gap mode at this load. anybody: whether any arm holds the target."""
    if not ours["holds"]:
        return "broken" if anybody else "nobody holds"
    late = [key for key in ("ttft_p50_ms", "ttft_p99_ms") if ours.get(key, 0) > TOLERANCE]
    return "slower first tokens" if late else "passed"


def markdown(summary: dict[str, Any]) -> str:
    """The table for people."""
    lines = [
        f"### Gap mode, {summary['set']} cells",
        "",
        f"{summary['requests']} requests x {len(summary['seeds'])} seeds. P99 TBT of the worst class and seed over "
        "D_d; in brackets TTFT P50 and P99 over those of the best fixed budget that holds at this load.",
        "",
        "| cell | load, 1/s | best fixed | its TTFT P50, P99, ms | "
        + " | ".join(arm.name for arm in OTHERS)
        + " | verdict |",
        "| --- | --- | --- | --- | " + "--- | " * len(OTHERS) + "--- |",
    ]
    for row in summary["rows"]:
        if "share" not in row:
            lines.append(f"| {row['cell']} | - | - | - | " + "- | " * len(OTHERS) + f"{row['verdict']} |")
            continue
        first = f"{row['ttft_p50_ms']:.0f}, {row['ttft_p99_ms']:.0f}" if row["best_fixed"] else "-"
        shown = [show(row["against_best_fixed"][arm.name]) for arm in OTHERS]
        lines.append(
            f"| {row['cell']} | {row['load']:.3f} ({row['share']:g}) | {row['best_fixed'] or 'none'} | {first} | "
            + " | ".join(shown)
            + f" | {row['verdict']} |"
        )
    passed = sum(row["verdict"] == "passed" for row in summary["rows"])
    able = sum(row["verdict"] != "nobody holds" for row in summary["rows"])
    lines += ["", f"Passed: {passed} of {able} rows in which anybody holds the target."]
    return "\n".join(lines + fresh_lines(summary)) + "\n"


def fresh_lines(summary: dict[str, Any]) -> list[str]:
    """The table of fresh seeds, where there were any."""
    rows = [row for row in summary["rows"] if "fresh" in row]
    if not rows:
        return []
    count = summary["fresh"]
    lines = [
        "",
        f"The same loads on {count} fresh seeds: gap mode, and the budget that was best on the others. TTFT of "
        "gap mode over its, geometric mean of paired ratios, 95 % interval.",
        "",
        "| cell | share | holds | worst P99 TBT | best fixed holds | longest gap, its | TTFT P50 | TTFT P99 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        fresh = row["fresh"]
        ratios = " | ".join(interval(fresh[key]) for key in ("ttft_p50_ms", "ttft_p99_ms"))
        lines.append(
            f"| {row['cell']} | {row['share']:g} | {fresh['holds']} of {count} | {fresh['tbt_p99_over_target']:.3f} | "
            f"{row['best_fixed']}, {fresh['fixed_holds']} of {count} | {fresh['longest_gap_ms'] / 1000:.2f} s, "
            f"{fresh['fixed_longest_gap_ms'] / 1000:.2f} s | {ratios} |"
        )
    return lines


def interval(found: dict[str, float | None]) -> str:
    """A ratio, with its interval where there is one."""
    text = f"{found['ratio']:.2f}"
    return text if found["low"] is None else f"{text} ({found['low']:.2f} to {found['high']:.2f})"


def show(one: dict[str, Any]) -> str:
    """A policy's cell of the table."""
    text = f"{one['tbt_p99_over_target']:.3f}{'' if one['holds'] else ' broken'}"
    if one.get("ttft_p50_ms") is None:
        return text
    return f"{text} ({one['ttft_p50_ms']:.2f}, {one['ttft_p99_ms']:.2f})"


if __name__ == "__main__":
    main()
