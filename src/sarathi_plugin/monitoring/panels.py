"""The kinds of panels, each drawn into its axes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from sarathi_plugin.monitoring.expand import Window
    from sarathi_plugin.monitoring.preview import Found
    from sarathi_plugin.monitoring.prom import Series

INK, SOFT, GRID, MARK, LIMIT = "#1f2933", "#5b6b7a", "#e8ecf0", "#7e57c2", "#d62728"
COLOURS = (
    "#1f77b4",
    "#e8853a",
    "#2e9e5b",
    "#c0392b",
    "#7f6fc4",
    "#8d6e63",
    "#d269a5",
    "#6b7280",
    "#a3a61f",
    "#19a7b8",
)
ROW = 0.24
"""Height of a row of a table, inches."""

STAT = {"green": "#2e8b57", "orange": "#e8853a", "red": LIMIT}


def empty(axes: Axes) -> None:
    """A panel whose queries brought nothing."""
    axes.set_axis_off()
    axes.text(
        0.5, 0.5, "no data in this time range", ha="center", va="center", color=SOFT, transform=axes.transAxes
    )


def on_grid(series: Series, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Times and values at every step of the window; NaN where the series has none."""
    times = window.start + window.step * np.arange(int((window.end - window.start) / window.step) + 1)
    values = np.full(len(times), np.nan)
    for moment, value in series.samples:
        index = round((moment - window.start) / window.step)
        if 0 <= index < len(values):
            values[index] = value
    return times, values


def lines(axes: Axes, panel: dict[str, Any], found: list[Found], window: Window) -> None:
    """Lines over time, stacked where the panel says so."""
    custom = panel["fieldConfig"]["defaults"]["custom"]
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    base = 0.0
    for index, (name, series) in enumerate(pair for one in found for pair in one.series):
        colour = COLOURS[index % len(COLOURS)]
        times, values = on_grid(series, window)
        if stacked:
            top = base + np.nan_to_num(values)
            axes.fill_between(times, base, top, color=colour, alpha=0.75, linewidth=0, label=name, step="mid")
            base = top
        else:
            axes.plot(
                times, values, color=colour, linewidth=1.5, label=name, marker=_marker(values), markersize=3
            )
    _value_axis(axes, panel)
    _limit(axes, panel)


def _marker(values: np.ndarray) -> str:
    """A lone sample between gaps has no line: show points where there are such."""
    present = ~np.isnan(values)
    neighbours = np.zeros(len(values), bool)
    neighbours[1:] |= present[:-1]
    neighbours[:-1] |= present[1:]
    return "." if (present & ~neighbours).any() else ""


def _value_axis(axes: Axes, panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    axes.set_ylabel(defaults["custom"]["axisLabel"], fontsize=8, color=SOFT)
    low, high = axes.get_ylim()
    top = defaults.get("max") or (high if high > 0 and axes.dataLim.height + axes.dataLim.y0 > 0 else 1.0)
    axes.set_ylim(min(0.0, low if low < -1e-9 and axes.dataLim.y0 < 0 else 0.0), top * 1.02)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if defaults["unit"] == "percentunit":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _limit(axes: Axes, panel: dict[str, Any]) -> None:
    """The dashed line of a threshold, where it lies inside the picture."""
    defaults = panel["fieldConfig"]["defaults"]
    steps = defaults["thresholds"]["steps"]
    if defaults["custom"].get("thresholdsStyle", {}).get("mode") == "dashed" and len(steps) > 1:
        at = steps[1]["value"]
        if at <= axes.get_ylim()[1]:
            axes.axhline(at, color=LIMIT, linewidth=1, linestyle=(0, (4, 3)))


def time_axis(axes: Axes, window: Window, marks: Sequence[float], ticks: int) -> None:
    """So many clock times below, restarts as dashed lines."""
    seconds = window.end - window.start < 300
    axes.set_xlim(window.start, window.end)
    clock = "%H:%M:%S" if seconds else "%H:%M"
    part = (window.end - window.start) / ticks
    times = [window.start + part * (index + 0.45) for index in range(ticks)]
    axes.set_xticks(times, [datetime.fromtimestamp(moment, UTC).strftime(clock) for moment in times])
    axes.annotate("UTC", (1, 0), xytext=(0, -6), xycoords="axes fraction", textcoords="offset points", ha="right",
                  va="top", fontsize=8, color=SOFT)  # fmt: skip
    for mark in marks:
        axes.axvline(mark, color=MARK, linewidth=1, linestyle=(0, (2, 2)))
    axes.tick_params(length=0, labelsize=8, colors=SOFT)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_color(GRID)


def heat(axes: Axes, panel: dict[str, Any], found: list[Found], window: Window) -> None:
    """A histogram over time: rows are buckets, darker is more. Prometheus' buckets are cumulative."""
    series = sorted(
        (pair[1] for one in found for pair in one.series), key=lambda one: float(one.labels["le"])
    )
    edges = [one.labels["le"] for one in series]
    cumulative = np.array([np.nan_to_num(on_grid(one, window)[1]) for one in series])
    counts = np.diff(cumulative, axis=0, prepend=0).clip(0)
    used = np.nonzero(counts.sum(axis=1))[0]
    low, high = (used[0], used[-1] + 1) if len(used) else (0, len(edges))
    times = window.start + window.step * (np.arange(counts.shape[1] + 1) - 0.5)
    mesh = axes.pcolormesh(
        times, np.arange(low, high + 1), np.where(counts[low:high] > 0, counts[low:high], np.nan), cmap="Blues",
        norm=PowerNorm(0.4, vmin=0, vmax=max(1.0, counts.max())),
    )  # fmt: skip
    rows = range(low, high, max(1, (high - low) // 8))
    axes.set_yticks(
        [row + 0.5 for row in rows], [f"≤ {float(edges[row]):g}".replace("inf", "∞") for row in rows]
    )
    axes.set_ylabel(panel["options"]["yAxis"]["axisLabel"], fontsize=8, color=SOFT)
    bar = axes.figure.colorbar(mesh, cax=axes.inset_axes((1.015, 0.0, 0.02, 1.0)), ticks=MaxNLocator(4))
    bar.ax.tick_params(length=0, labelsize=7, colors=SOFT, pad=1)
    bar.outline.set_visible(False)


def shown(value: float, unit: str, decimals: int | None) -> str:
    """A value with its unit."""
    if unit == "percentunit":
        return f"{value * 100:.{1 if decimals is None else decimals}f} %"
    if unit == "s":
        return (
            f"{value * 1000:.0f} ms"
            if 0 < value < 1
            else f"{value:.{1 if decimals is None else decimals}f} s"
        )
    return f"{value:.4g}"


def value(axes: Axes, panel: dict[str, Any], found: list[Found], window: Window) -> None:
    """The latest value, large, over its own course."""
    defaults = panel["fieldConfig"]["defaults"]
    series = found[0].series[0][1]
    latest = series.samples[-1][1]
    steps = defaults["thresholds"]["steps"]
    colour = STAT[[step["color"] for step in steps if step["value"] is None or latest >= step["value"]][-1]]
    axes.set_axis_off()
    times, values = on_grid(series, window)
    course = axes.inset_axes((0, 0, 1, 0.38))
    course.set_axis_off()
    course.fill_between(times, 0, values, color=colour, alpha=0.18, linewidth=0)
    course.set_xlim(window.start, window.end)
    text = shown(latest, defaults["unit"], defaults.get("decimals"))
    axes.text(0.5, 0.62, text, ha="center", va="center", fontsize=21, color=colour, transform=axes.transAxes)


def table(axes: Axes, panel: dict[str, Any], found: list[Found]) -> None:
    """One row a series, its labels as columns."""
    hidden = panel["transformations"][0]["options"]["excludeByName"]
    rows = [series.labels for one in found for _, series in one.series]
    names = sorted({name for row in rows for name in row} - set(hidden))
    axes.set_axis_off()
    rows = rows[:5]
    height = min(1.0, ROW * (len(rows) + 1) / (axes.bbox.height / axes.figure.dpi))
    cells = axes.table(
        [[row.get(name, "") for name in names] for row in rows],
        colLabels=names,
        cellLoc="left",
        colLoc="left",
        edges="horizontal",
        bbox=Bbox.from_bounds(0, 1 - height, 1, height),
    )
    cells.auto_set_font_size(False)
    cells.set_fontsize(9)
    for cell in cells.get_celld().values():
        cell.set_edgecolor(GRID)
        cell.set_text_props(color=INK)
