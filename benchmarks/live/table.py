"""From units to figures: means, paired differences with intervals, tables."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from live.servers import OURS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from live.units import Unit

Runs = dict["Unit", dict[str, Any]]

T_975 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)
"""Student's t, two-sided 95 %, by degrees of freedom from one on."""

PAIRED = ("fluid_share", "fluidity_index", "fluidity_mean", "ttft_p50_ms", "ttft_p99_ms", "tbt_p99_ms")
SHOWN = (
    "fluid_share", "fluidity_index", "ttft_p50_ms", "ttft_p90_ms", "ttft_p99_ms", "tbt_p50_ms", "tbt_p90_ms",
    "tbt_p99_ms", "longest_freeze_ms", "tokens_per_s", "dispatch_lag_p99_ms",
)  # fmt: skip


def interval(values: list[float]) -> tuple[float, float, float]:
    """(mean, lower, upper) of the 95 % interval of the mean by Student's t; infinitely wide for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("-inf"), float("inf")
    t = T_975[min(len(values) - 1, len(T_975)) - 1]
    half = t * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def compare(runs: Runs) -> dict[str, Any]:
    """Every load: means by arm, and the differences of ours to each other arm, paired by repeat."""
    loads: dict[str, Any] = {}
    for rate in sorted({unit.rate for unit in runs}):
        by_arm: dict[str, dict[int, dict[str, Any]]] = {}
        for unit, result in runs.items():
            if unit.rate == rate:
                by_arm.setdefault(unit.arm, {})[unit.repeat] = result
        loads[f"{rate:g}"] = {
            "arms": {arm: mean_of(found.values()) for arm, found in by_arm.items()},
            "ours_minus": {
                arm: {name: differences(by_arm[OURS], found, name) for name in PAIRED}
                for arm, found in by_arm.items()
                if arm != OURS and OURS in by_arm
            },
        }
    return loads


def mean_of(results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Means over the repeats, those of the classes among them, and how many runs are marked."""
    found = list(results)
    row: dict[str, Any] = {"runs": len(found), "marked": sum(bool(one["marked"]) for one in found)}
    for name in SHOWN:
        values = [one[name] for one in found if one[name] is not None]
        row[name] = round(statistics.fmean(values), 4) if values else None
    row["fluid_by_class"] = {
        name: round(statistics.fmean(one["fluid_by_class"][name] for one in found), 4)
        for name in found[0]["fluid_by_class"]
    }
    return row


def differences(
    ours: dict[int, dict[str, Any]], theirs: dict[int, dict[str, Any]], name: str
) -> dict[str, Any] | None:
    """Paired by repeat: of all pairs, and of those of which neither run is marked."""
    both = [r for r in sorted(ours) if r in theirs and None not in (ours[r][name], theirs[r][name])]
    clean = [r for r in both if not (ours[r]["marked"] or theirs[r]["marked"])]
    found: dict[str, Any] = {}
    for label, repeats in (("all", both), ("unmarked", clean)):
        if len(repeats) > 1:
            mean, low, high = interval([ours[r][name] - theirs[r][name] for r in repeats])
            found[label] = {
                "pairs": len(repeats),
                "mean": round(mean, 4),
                "interval": [round(low, 4), round(high, 4)],
            }
    return found or None


def markdown(summary: dict[str, Any]) -> str:
    """The tables for people."""
    parts = ["# Live bench", ""]
    parts += [
        line for about in ("setting", "smollm2_setting") if summary[about] for line in (summary[about], "")
    ]
    for title, loads in (("", summary["comparison"]), ("SmolLM2: ", summary["smollm2"])):
        for rate, load in loads.items():
            parts += [f"## {title}{rate} requests/s", "", *arms_table(load["arms"]), ""]
            if load["ours_minus"]:
                parts += ["`sarathi` less the other arm, paired by repeat, 95 % interval of the mean:", ""]
                parts += [*pairs_table(load["ours_minus"]), ""]
    if summary["capacity"]:
        parts += [
            "## Fluid capacity at 95 %, requests/s",
            "",
            "| arm | mean | by repeat |",
            "| --- | --- | --- |",
        ]
        for arm, rates in summary["capacity"].items():
            parts.append(
                f"| {arm} | {statistics.fmean(rates):.2f} | {', '.join(f'{r:.2f}' for r in rates)} |"
            )
    return "\n".join(parts).rstrip() + "\n"


def arms_table(arms: dict[str, dict[str, Any]]) -> list[str]:
    """Means by arm."""
    names = [name.removesuffix("_ms").replace("_", " ") for name in SHOWN]
    by_class = next(iter(arms.values()))["fluid_by_class"]
    classes = list(by_class) if len(by_class) > 1 else []
    names += [f"fluid {name}" for name in classes]
    lines = ["| arm | runs (marked) | " + " | ".join(names) + " |", "| --- |" + " --- |" * (1 + len(names))]
    for arm, row in arms.items():
        cells = [shown(name, row[name]) for name in SHOWN]
        cells += [shown("fluid_share", row["fluid_by_class"][name]) for name in classes]
        lines.append(f"| {arm} | {row['runs']} ({row['marked']}) | " + " | ".join(cells) + " |")
    return lines


def pairs_table(against: dict[str, dict[str, Any]]) -> list[str]:
    """Differences by arm; all pairs, and in brackets those without a mark where these are fewer."""
    names = [name.removesuffix("_ms").replace("_", " ") for name in PAIRED]
    lines = ["| against | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(PAIRED)]
    for arm, row in against.items():
        cells = [difference(name, row[name]) for name in PAIRED]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return lines


def difference(name: str, found: dict[str, Any] | None) -> str:
    """One cell of differences."""
    if not found:
        return "-"

    def text(one: dict[str, Any]) -> str:
        mean, low, high = (shown(name, value, sign=True) for value in (one["mean"], *one["interval"]))
        return f"{mean} ({low} to {high})"

    whole, clean = found["all"], found.get("unmarked")
    if clean and clean["pairs"] < whole["pairs"]:
        return f"{text(whole)} [{clean['pairs']} unmarked: {text(clean)}]"
    return text(whole)


def shown(name: str, value: float | None, *, sign: bool = False) -> str:
    """A figure as people read it: shares in percent, times in ms or s."""
    if value is None:
        return "-"
    plus = "+" if sign else ""
    if name == "fluid_share":
        return f"{100 * value:{plus}.1f} %"
    if name.startswith("fluidity"):
        return f"{value:{plus}.3f}"
    if name == "tokens_per_s":
        return f"{value:{plus}.0f}"
    return f"{value / 1000:{plus}.2f} s" if abs(value) >= 1000 else f"{value:{plus}.1f} ms"
