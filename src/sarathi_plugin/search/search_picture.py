"""Every configuration of a search: cost against fluidity, and cost against the time to the first token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sarathi_plugin.search.pareto import point_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GREY, BLUE, RED = "#9aa0a6", "#1a73e8", "#c5221f"


def draw(
    path: Path,
    rows: Sequence[dict[str, Any]],
    front: Sequence[dict[str, Any]],
    winner: dict[str, Any] | None,
    cost: str,
) -> None:
    """Write a PNG. cost: the label of the cost axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    able = [row for row in rows if not row["hopeless"]]
    panels = ((left, 1, "deadlines missed (1 - fluidity-index)"), (right, 2, "TTFT P90, seconds"))
    for axes, which, label in panels:
        for chosen, passed, style in (
            (able, True, {"color": GREY, "s": 18, "label": "passes"}),
            (able, False, {"facecolors": "none", "edgecolors": GREY, "s": 18, "label": "does not pass"}),
            (front, None, {"color": BLUE, "s": 30, "label": "nobody better in all three"}),
            ([winner] if winner else [], None, {"color": RED, "marker": "*", "s": 160, "label": "winner"}),
        ):
            points = [point_of(row) for row in chosen if passed is None or row["passed"] == passed]
            if points:
                axes.scatter([point[0] for point in points], [point[which] for point in points], **style)
        axes.set_xlabel(cost)
        axes.set_ylabel(label)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.25)
    left.set_ylim(bottom=0)
    right.set_yscale("log")
    for formatter in (right.yaxis.set_major_formatter, right.yaxis.set_minor_formatter):
        formatter(StrMethodFormatter("{x:g}"))
    if left.get_legend_handles_labels()[0]:
        left.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
