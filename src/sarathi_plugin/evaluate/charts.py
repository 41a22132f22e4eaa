"""Pictures of a report as SVG: text stays text, and ink is the page's own, so that they are right in light and dark."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from sarathi_plugin.demo import picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from sarathi_plugin.evaluate.statistics import Estimate
    from sarathi_plugin.records import RequestTimeline, StepRecord

INK = "#010203"
"""Stands for the page's text colour."""

COLOURS = ("#3d84f5", "#e56b2f", "#2a9d6a", "#a85fd3", "#c19a1f", "#7890a0", "#d6457d", "#36a9ba")
LATE = "#d64545"
POINTS = 200
"""Points of a curve: more than a page shows."""

APART = 0.008
"""Points of two arms at one load stand so far apart, as a share of the axis: their intervals would hide each other."""

SHORTEST = 1.0
"""What a logarithmic axis shows of anything shorter, ms: several tokens of one step have no time between them."""

Scale = Literal["linear", "log"]


def colour(number: int) -> str:
    """Of the arm at this place."""
    return COLOURS[number % len(COLOURS)]


def _figure(columns: int, height: float, rows: int = 1, width: float = 11.0) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        for side, spine in axis.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(INK)
            spine.set_alpha(0.4)
        axis.tick_params(colors=INK, labelsize=9)
        axis.set_axisbelow(True)
        axis.grid(color=INK, alpha=0.12, linewidth=0.7)
        axis.xaxis.label.set_color(INK)
        axis.yaxis.label.set_color(INK)
    return figure, axes


def svg(figure: Figure, name: str) -> str:
    """A figure as an ``svg`` element. name: makes the ids inside it its own."""
    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=5, frameon=False, fontsize=10, labelcolor=INK
        )


def distributions(
    name: str, panels: Sequence[tuple[str, Mapping[str, Sequence[float]], Scale]], arms: Sequence[str]
) -> str:
    """CDFs side by side. panels: (what is on the axis, values by arm, its scale)."""
    figure, axes = _figure(len(panels), 3.6)
    for axis, (label, values, scale) in zip(axes[0], panels, strict=True):
        for number, arm in enumerate(arms):
            found = np.asarray(values.get(arm, ()), float)
            found = np.maximum(found, SHORTEST) if scale == "log" else found
            if len(found):
                shares = np.linspace(0, 100, min(POINTS, len(found)))
                axis.plot(
                    np.percentile(found, shares), shares, color=colour(number), label=arm, linewidth=1.6
                )
        axis.set_xlabel(label, fontsize=10)
        axis.set_ylim(0, 101)
        if scale == "log":
            axis.set_xscale("log")
    axes[0][0].set_ylabel("% at or below", fontsize=10)
    _legend(figure, axes[0][0])
    return svg(figure, name)


def curves(
    name: str, workloads: Mapping[str, Mapping[str, Sequence[tuple[float, Estimate]]]], arms: Sequence[str]
) -> str:
    """Share of fluid requests over the load, one panel a workload, with intervals."""
    figure, axes = _figure(len(workloads), 3.8)
    for axis, (workload, found) in zip(axes[0], workloads.items(), strict=True):
        loads = sorted({load for points in found.values() for load, _ in points})
        apart = APART * (loads[-1] - loads[0] or loads[-1]) if loads else 0.0
        axis.set_xticks(loads, [f"{load:g}" for load in loads])
        for number, arm in enumerate(arms):
            points = found.get(arm, ())
            if not points:
                continue
            aside = apart * (number - (len(arms) - 1) / 2)
            x = [load + aside for load, _ in points]
            y = [100 * e.value for _, e in points]
            low = [min(100 * (e.value - e.low), 100 * e.value) for _, e in points]
            high = [min(100 * (e.high - e.value), 100 - 100 * e.value) for _, e in points]
            axis.errorbar(
                x, y, yerr=[low, high], color=colour(number), label=arm, marker="o", markersize=5, capsize=3,
                linewidth=1.6, elinewidth=0.9,
            )  # fmt: skip
        axis.axhline(99, color=INK, alpha=0.5, linewidth=0.9, linestyle="--")
        axis.set_title(workload, fontsize=11, loc="left", color=INK)
        axis.set_xlabel("requests per second", fontsize=10)
        axis.set_ylim(-2, 103)
    axes[0][0].set_ylabel("% of requests fluid", fontsize=10)
    _legend(figure, axes[0][0])
    return svg(figure, name)


def phases(
    name: str, found: Mapping[str, tuple[float | None, float | None, float | None]], title: str
) -> str:
    """Waiting, prefill and decode of every arm in seconds, a panel each; None where it is not known."""
    figure, axes = _figure(3, 0.9 + 0.42 * len(found))
    labels = list(found)
    for axis, (place, what) in zip(axes[0], enumerate(("waiting", "prefill", "decode")), strict=True):
        for row, arm in enumerate(labels):
            value = found[arm][place]
            if value is None:
                axis.text(
                    0.01,
                    row,
                    "not known",
                    transform=axis.get_yaxis_transform(),
                    va="center",
                    color=INK,
                    fontsize=9,
                )
            else:
                axis.barh(row, value, color=colour(row), height=0.6)
        axis.set_yticks(range(len(labels)), labels if place == 0 else [""] * len(labels), fontsize=10)
        axis.set_ylim(len(labels) - 0.4, -0.6)
        axis.set_xlim(left=0)
        axis.set_title(what, fontsize=11, loc="left", color=INK)
        axis.set_xlabel(f"seconds, {title}", fontsize=9)
        axis.locator_params(axis="x", nbins=5)
    return svg(figure, name)


def timelines(name: str, panels: Sequence[tuple[str, Sequence[tuple[str, RequestTimeline]]]]) -> str:
    """Every token of some requests, one row each, from their arrival on; late tokens and stalls in red."""
    rows = sum(len(found) for _, found in panels)
    figure = Figure(figsize=(11, 1.1 * len(panels) + 0.36 * rows), layout="constrained")
    ratios = [len(found) + 1 for _, found in panels]
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios})[
        :, 0
    ]
    for axis, (title, found) in zip(axes, panels, strict=True):
        for y, (label, timeline) in enumerate(found):
            _draw_row(axis, y, picture.row(timeline, timeline.arrival_ns, label))
        axis.set_yticks(range(len(found)), [label for label, _ in found], fontsize=9)
        axis.set_ylim(len(found) - 0.4, -0.6)
        axis.set_title(title, loc="left", fontsize=11, color=INK)
        axis.tick_params(colors=INK, length=0, labelsize=9)
        for side in axis.spines.values():
            side.set_visible(False)
    axes[-1].set_xlabel("seconds since the request arrived", color=INK, fontsize=10)
    axes[-1].set_xlim(left=0)
    return svg(figure, name)


def _draw_row(axis: Axes, y: int, line: picture.Row) -> None:
    axis.hlines(y, *line.waiting, color=INK, alpha=0.25, linewidth=2, zorder=1)
    for begin, end in line.stalls:
        axis.hlines(y, begin, end, color=LATE, linewidth=7, alpha=0.45, zorder=2)
    axis.vlines(line.on_time, y - 0.32, y + 0.32, color=INK, linewidth=0.6, zorder=3)
    axis.vlines(line.late, y - 0.4, y + 0.4, color=LATE, linewidth=1.6, zorder=4)


def steps(name: str, found: Mapping[str, Sequence[StepRecord]], arms: Sequence[str]) -> str:
    """What steps carried and how long they took: two panels, CDFs over steps with prompt tokens and over all."""
    figure, axes = _figure(3, 3.6)
    for arm, records in found.items():
        number = arms.index(arm)
        prompts = np.sort([r.shape.prefill_tokens for r in records if r.shape.prefill_tokens])
        rows = np.sort([r.shape.decode_rows for r in records])
        times = np.sort([r.duration_ns / 1e6 for r in records])
        for axis, values in zip(axes[0], (prompts, rows, times), strict=True):
            if len(values):
                shares = np.linspace(0, 100, min(POINTS, len(values)))
                axis.plot(
                    np.percentile(values, shares), shares, color=colour(number), label=arm, linewidth=1.6
                )
    labels = ("prompt tokens of steps that carry any", "decodes of a step", "duration of a step, ms")
    for axis, label in zip(axes[0], labels, strict=True):
        axis.set_xlabel(label, fontsize=10)
        axis.set_ylim(0, 101)
        axis.set_xlim(left=0)
    axes[0][0].set_ylabel("% of steps at or below", fontsize=10)
    _legend(figure, axes[0][1])
    return svg(figure, name)
