"""A dashboard as a picture: panels where Grafana would lay them out."""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from sarathi_plugin.monitoring import panels
from sarathi_plugin.monitoring.panels import INK, SOFT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sarathi_plugin.monitoring.expand import Window
    from sarathi_plugin.monitoring.preview import Found

COLUMN, UNIT, HEAD = 0.78, 0.37, 0.85
"""Inches: width of one of Grafana's 24 columns, height of a unit, and the title above all."""

DPI = 80
LEFT, RIGHT, BAR, TOP, TICKS, LINE = 0.78, 0.2, 0.55, 0.36, 0.42, 0.17
"""Inches around a panel's axes: axis label, margin, colour bar, title, time axis, and a line of its legend."""

DRAWN = {"timeseries": panels.lines, "heatmap": panels.heat}


def draw(
    path: Path, board: dict[str, Any], contents: Sequence[tuple[dict[str, Any], list[Found]]], window: Window,
    marks: Sequence[float], shown: str,
) -> None:  # fmt: skip
    """Write the picture. contents: panels with what their queries brought; marks: restarts, Unix seconds."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    width, height = 24 * COLUMN, bottom * UNIT + HEAD
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    _head(figure, board, window, shown)
    for row in board["panels"]:
        if row["type"] == "row":
            y = height - HEAD - (row["gridPos"]["y"] + 0.75) * UNIT
            figure.text(0.12 / width, y / height, row["title"], fontsize=11, fontweight="bold", color=INK)
    for panel, found in contents:
        _panel(figure, panel, found, window, marks)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    # Few colours: a palette makes the file a third as large.
    Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def _head(figure: Figure, board: dict[str, Any], window: Window, shown: str) -> None:
    width, height = figure.get_size_inches()

    def clock(moment: float) -> str:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")

    left = 0.12 / width
    figure.text(left, 1 - 0.38 / height, board["title"], fontsize=17, fontweight="bold", color=INK)
    when = f"{clock(window.start)} to {clock(window.end)} UTC    {shown}    dashed purple: restart"
    figure.text(left, 1 - 0.68 / height, when, fontsize=9, color=SOFT)


def _panel(
    figure: Figure, panel: dict[str, Any], found: list[Found], window: Window, marks: Sequence[float]
) -> None:
    width, height = figure.get_size_inches()
    grid = panel["gridPos"]
    x, w = grid["x"] * COLUMN, grid["w"] * COLUMN
    h = grid["h"] * UNIT
    y = height - HEAD - grid["y"] * UNIT - h
    graph = panel["type"] in DRAWN
    title = figure.text((x + 0.12) / width, (y + h - 0.24) / height, panel["title"], fontsize=10, color=INK)
    title.set_wrap(False)
    names = [name for one in found for name, _ in one.series] if panel["type"] == "timeseries" else []
    columns = legend_columns(names, w - LEFT - RIGHT)
    below = TICKS + LINE * math.ceil(len(names) / columns) if graph else 0.1
    left = LEFT if graph else 0.12
    right = BAR if panel["type"] == "heatmap" else RIGHT
    inner = (x + left, y + below, w - left - right, h - below - TOP)
    axes = figure.add_axes((inner[0] / width, inner[1] / height, inner[2] / width, inner[3] / height))
    if not any(one.series for one in found):
        panels.empty(axes)
    elif graph:
        DRAWN[panel["type"]](axes, panel, found, window)
        panels.time_axis(axes, window, marks, max(2, int(inner[2] / 1.0)))
        if names:
            axes.legend(
                loc="upper left", bbox_to_anchor=(0, -(TICKS - 0.04) / inner[3]), ncols=columns, fontsize=8,
                frameon=False, borderaxespad=0, borderpad=0, labelspacing=0.25, handlelength=1.4,
                columnspacing=1.2, labelcolor=SOFT,
            )  # fmt: skip
    elif panel["type"] == "stat":
        panels.value(axes, panel, found, window)
    else:
        panels.table(axes, panel, found)


def legend_columns(names: Sequence[str], width: float) -> int:
    """How many columns of legend entries fit into so many inches."""
    longest = max((len(name) for name in names), default=0)
    return max(1, min(len(names) or 1, int(width / (0.42 + 0.072 * longest))))
