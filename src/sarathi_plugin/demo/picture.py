"""The picture: every token of both runs, one row a request; where a stream froze is red."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.deadlines import DeadlineState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sarathi_plugin.core import SloClass
    from sarathi_plugin.records import RequestTimeline

INK, SOFT, LATE, PAUSE, WAIT = "#1f3b57", "#5b6b7a", "#d62728", "#fbdcd6", "#c9d1d9"

PAUSE_PERIODS = 2
"""A gap of more than so many D_d is shown as a pause."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request in seconds from the start of its run.

    on_time, late: token times. stalls: (deadline, end) of every interval past a deadline. pauses: longer gaps
    between tokens, past a deadline or not. waiting: (arrival, first token, or the end when there was none).
    """

    label: str
    on_time: tuple[float, ...]
    late: tuple[float, ...]
    stalls: tuple[tuple[float, float], ...]
    pauses: tuple[tuple[float, float], ...]
    waiting: tuple[float, float]
    failed: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """One run: its title, a line of figures, its requests in order of arrival."""

    title: str
    subtitle: str
    rows: tuple[Row, ...]


def row(timeline: RequestTimeline, start_ns: int, label: str) -> Row:
    """A timeline as a row, by the deadlines that the fluidity-index counts."""

    def second(ns: int) -> float:
        return (ns - start_ns) / NS_PER_S

    first_ns = timeline.prefill_ns + timeline.ttft_slack_ns
    state = DeadlineState.from_arrival(timeline.arrival_ns, first_ns, timeline.tbt_ns)
    on_time, late, stalls = [], [], []
    for now in timeline.token_ns:
        due = state.next_deadline_ns
        if state.emit(now):
            late.append(second(now))
            stalls.append((second(due), second(now)))
        else:
            on_time.append(second(now))
    failed = timeline.status != "finished"
    if failed and timeline.end_ns > state.next_deadline_ns:
        stalls.append((second(state.next_deadline_ns), second(timeline.end_ns)))
    pauses = [
        (second(a), second(b))
        for a, b in itertools.pairwise(timeline.token_ns)
        if b - a > PAUSE_PERIODS * timeline.tbt_ns
    ]
    waiting = (
        second(timeline.arrival_ns),
        second(timeline.token_ns[0] if timeline.token_ns else timeline.end_ns),
    )
    return Row(label, tuple(on_time), tuple(late), tuple(stalls), tuple(pauses), waiting, failed)


def draw(path: Path, panels: Sequence[Panel], slo: SloClass) -> None:
    """Write the picture as PNG, one panel a run, on one time axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(len(panel.rows) for panel in panels)
    figure = Figure(
        figsize=(13, 1.6 + len(panels) * (0.9 + 0.26 * rows)), facecolor="white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, panel)
    axes[-1].set_xlabel("seconds since the start of the load", color=SOFT)
    axes[-1].set_xlim(left=0)
    _legend(figure, slo)
    figure.savefig(path, dpi=130)


def _draw_panel(axis: Axes, panel: Panel) -> None:
    axis.set_title(panel.title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=24)
    axis.annotate(
        panel.subtitle,
        (0, 1),
        xytext=(0, 7),
        xycoords="axes fraction",
        textcoords="offset points",
        color=SOFT,
    )
    for y, line in enumerate(panel.rows):
        axis.hlines(y, *line.waiting, color=WAIT, linewidth=2, zorder=1)
        for begin, end in line.pauses:
            axis.hlines(y, begin, end, color=PAUSE, linewidth=7, zorder=1)
        for begin, end in line.stalls:
            axis.hlines(y, begin, end, color=LATE, linewidth=7, alpha=0.6, zorder=2)
        axis.vlines(line.on_time, y - 0.34, y + 0.34, color=INK, linewidth=0.6, zorder=3)
        axis.vlines(line.late, y - 0.42, y + 0.42, color=LATE, linewidth=1.6, zorder=4)
        if line.failed:
            axis.plot(
                [max(line.waiting[1], *line.late, *line.on_time, 0)], [y], "x", color=LATE, markersize=8
            )
    axis.set_yticks(range(len(panel.rows)), [line.label for line in panel.rows], fontsize=9)
    axis.set_ylim(len(panel.rows) - 0.4, -0.6)
    axis.tick_params(length=0, colors=SOFT)
    axis.grid(axis="x", color="#eef1f4", zorder=0)
    for side in axis.spines.values():
        side.set_visible(False)


def _legend(figure: Figure, slo: SloClass) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=INK, marker="|", linestyle="", markersize=11, label="token on time"),
        Line2D(
            [], [], color=LATE, marker="|", linestyle="", markersize=12, markeredgewidth=2, label="late token"
        ),
        Line2D([], [], color=PAUSE, linewidth=7, label="pause, covered by early tokens"),
        Line2D([], [], color=LATE, linewidth=7, alpha=0.6, label="past its deadline"),
        Line2D([], [], color=WAIT, linewidth=2, label="waiting for the first token"),
    ]
    legend = figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=5,
        frameon=False,
        labelcolor=SOFT,
        alignment="left",
        title=f"Every token of every request. A token is due every {slo.tbt_ns / NS_PER_MS:.0f} ms after the one "
        "before; early tokens bank slack.",
    )
    legend.get_title().set_color(SOFT)
