"""The live bench as a picture: every run a dot, the mean of an arm a bar.

    python -m live.picture FOLDER

draws FOLDER/live.png from FOLDER/live.json, which the bench has written (and drawn) there.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (
    ("fluid_share", 100.0, "fluid requests, %"),
    ("longest_freeze_ms", 1.0, "longest freeze of a stream, ms"),
    ("ttft_p50_ms", 1.0, "TTFT P50, ms"),
    ("ttft_p99_ms", 1e-3, "TTFT P99, s"),
)
COLOURS = {
    "stock-default": "#9aa0a6",
    "stock-best": "#5f6368",
    "sarathi-static": "#f9ab00",
    "sarathi": "#1a73e8",
}
"""Of the arms, in the order in which they are drawn."""

WIDTH = 0.2


def draw(summary: dict[str, Any], path: Path) -> None:
    """Write a PNG of the comparison and of the capacities, of what there is."""
    from matplotlib.figure import Figure

    loads, capacity = summary["comparison"], summary["capacity"]
    panels = PANELS if loads else ()
    figure = Figure(figsize=(2.9 * (len(panels) + bool(capacity)) + 0.4, 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels) + bool(capacity), squeeze=False)[0]
    for at, (name, factor, label) in zip(axes, panels, strict=False):
        for place, rate in enumerate(loads):
            arms = [arm for arm in COLOURS if arm in loads[rate]["arms"]]
            for index, arm in enumerate(arms):
                runs = [factor * value for value in values_of(summary["runs"], arm, float(rate), name)]
                column(at, place + (index - (len(arms) - 1) / 2) * WIDTH, runs, arm)
        at.set_xticks(range(len(loads)), [f"{rate} requests/s" for rate in loads])
        at.set_title(label, fontsize=10)
    if capacity:
        for place, (arm, rates) in enumerate(capacity.items()):
            column(axes[-1], place, rates, arm, 3 * WIDTH)
        axes[-1].set_xticks(range(len(capacity)), list(capacity))
        axes[-1].set_title("95 % fluid up to, requests/s", fontsize=10)
    for at in axes:
        at.set_ylim(bottom=0)
        at.spines[["top", "right"]].set_visible(False)
        at.grid(axis="y", alpha=0.25)
    handles = {arm: bar for at in axes for bar, arm in zip(*at.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=130)


def values_of(runs: dict[str, dict[str, Any]], arm: str, rate: float, name: str) -> list[float]:
    """A figure of every repeat of an arm at a load."""
    begin = f"compare-{arm}-{rate:.4f}-"
    return [run[name] for file, run in runs.items() if file.startswith(begin) and run[name] is not None]


def column(axes: Axes, at: float, values: list[float], arm: str, width: float = WIDTH) -> None:
    """One bar with a dot for each value."""
    if values:
        axes.bar(at, statistics.fmean(values), 0.92 * width, color=COLOURS[arm], label=arm, zorder=2)
        spread = [at + width * (0.5 * (i + 0.5) / len(values) - 0.25) for i in range(len(values))]
        axes.scatter(spread, values, s=9, color="white", edgecolors="black", linewidths=0.6, zorder=3)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    draw(json.loads((folder / "live.json").read_text()), folder / "live.png")
