"""Small line charts as SVG text, drawn here so that a report is one file that needs nothing else."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 40
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


class Line(NamedTuple):
    """A named line through (x, y) points; a y of None is a gap."""

    name: str
    points: list[tuple[float, float | None]]


def cdf(name: str, values: Sequence[float], most: int = 200) -> Line:
    """The share of values up to x, at no more than ``most`` points."""
    if not len(values):
        return Line(name, [])
    shares = np.linspace(0, 1, min(most, max(2, len(values))))
    at = np.quantile(np.asarray(values, float), shares)
    return Line(name, list(zip(at.tolist(), shares.tolist(), strict=True)))


def chart(
    title: str,
    x_title: str,
    lines: Sequence[Line],
    *,
    log_x: bool = False,
    x_range: tuple[float, float] | None = None,
    y_top: float | None = None,
) -> str:
    """One chart; the y axis starts at zero. Lines without points are left out.

    x_range: what the x axis covers; by default all of the lines, of logarithmic ones no more than three decades.
    """
    drawn = [line for line in lines if any(y is not None for _, y in line.points)]
    if not drawn:
        return f"<figure><figcaption>{escape(title)}: nothing was measured.</figcaption></figure>"
    xs = [x for line in drawn for x, y in line.points if y is not None]
    ys = [y for line in drawn for _, y in line.points if y is not None]
    low, high = x_range or _x_range(min(xs), max(xs), log_x=log_x)
    top = y_top if y_top is not None else max(ys) * 1.05 or 1.0

    def place(x: float, y: float) -> str:
        share = _along(x, low, high, log_x=log_x)
        return f"{LEFT + share * (WIDTH - LEFT - RIGHT):.1f},{HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [_frame(title, x_title), _legend(drawn), *_x_ticks(low, high, place, log_x=log_x), *_y_ticks(top)]
    for number, line in enumerate(drawn):
        colour = COLOURS[number % len(COLOURS)]
        parts += [
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{" ".join(run)}"/>'
            for run in _runs(line, place)
        ]
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _legend(lines: Sequence[Line]) -> str:
    """The names of the lines in their colours, right of the title."""
    names = " ".join(
        f'<tspan fill="{COLOURS[i % len(COLOURS)]}">{escape(line.name)}</tspan>'
        for i, line in enumerate(lines)
    )
    return f'<text x="{WIDTH - RIGHT}" y="16" text-anchor="end">{names}</text>'


def _runs(line: Line, place: Callable[[float, float], str]) -> list[list[str]]:
    """The stretches of a line between its gaps; a lone point becomes a short dash."""
    runs: list[list[str]] = [[]]
    for x, y in line.points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append(place(x, y))
    return [run * 2 if len(run) == 1 else run for run in runs if run]


def _x_range(low: float, high: float, *, log_x: bool) -> tuple[float, float]:
    if log_x:
        low = max(low, high / 1e3, 1e-9)
        return (low, high) if high > low * 1.01 else (low / 2, max(high, low) * 2)
    return (low, high) if high > low else (low, low + 1)


def _along(x: float, low: float, high: float, *, log_x: bool) -> float:
    if log_x:
        return math.log(max(x, low) / low) / math.log(high / low)
    return (x - low) / (high - low)


def _frame(title: str, x_title: str) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    return (
        f'<text x="{LEFT}" y="16" class="title">{escape(title)}</text>'
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>'
        f'<path class="axis" fill="none" d="M{LEFT},{TOP}V{bottom}H{right}"/>'
    )


def _x_ticks(low: float, high: float, place: Callable[[float, float], str], *, log_x: bool) -> list[str]:
    if log_x and high > 5 * low:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        steps = (1, 2, 5) if last - first <= 2 else (1,)
        at = [k * 10.0**e for e in range(first, last + 1) for k in steps if low <= k * 10.0**e <= high]
    else:
        at = _nice(low, high, 3 if log_x else 5)
    ticks = []
    for x in at:
        left = float(place(x, 0).partition(",")[0])
        ticks.append(f'<path class="axis" d="M{left:.1f},{HEIGHT - BOTTOM}v4"/>')
        ticks.append(f'<text x="{left:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>')
    return ticks


def _y_ticks(top: float) -> list[str]:
    ticks = []
    for y in _nice(0, top):
        down = HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM)
        ticks.append(f'<path class="grid" d="M{LEFT},{down:.1f}H{WIDTH - RIGHT}"/>')
        ticks.append(f'<text x="{LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{y:g}</text>')
    return ticks


def _nice(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two others."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((k * power for k in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
