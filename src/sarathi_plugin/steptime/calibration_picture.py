"""The picture of a calibration report: four panels, drawn with matplotlib (extra ``demo``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.steptime.machine import linear_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from sarathi_plugin.core import StepKind
    from sarathi_plugin.steptime.calibration import FitReport

INK, SOFT, GRID = "#1f3b57", "#5b6b7a", "#eef1f4"
COLOURS: dict[StepKind, str] = {"decode": "#4a7fb5", "mixed": "#d9822b", "prefill": "#7a4f9e"}
SHOWN = (0.5, 2.0)
"""Range of real over predicted in the panels; steps beyond stand at its edge."""

WINDOW = 101


def draw(report: FitReport, path: Path) -> None:
    """Write the picture as PNG. Raises ModuleNotFoundError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9.5), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    real = np.array([step.duration_ns for step in report.steps], np.float64) / NS_PER_MS
    predicted = report.predicted_ns / NS_PER_MS
    kinds = np.array([step.shape.kind for step in report.steps])
    _draw_scatter(axes[0, 0], real, predicted, kinds)
    _draw_residuals(axes[0, 1], real / np.maximum(predicted, 1e-6), kinds)
    _draw_linear(axes[1, 0], report, real - predicted, kinds)
    _draw_time(axes[1, 1], report, real / np.maximum(predicted, 1e-6), kinds)
    overall = report.overall
    figure.suptitle(
        f"{report.profile.name}: {overall.steps} steps, mean error {overall.mean_error:.1%}, predicted over real "
        f"time {overall.sum_ratio:.3f}",
        x=0.01,
        ha="left",
        fontsize=14,
        fontweight="bold",
        color=INK,
    )
    figure.savefig(path, dpi=110)


def _draw_scatter(
    axis: Axes, real: NDArray[np.float64], predicted: NDArray[np.float64], kinds: NDArray[np.str_]
) -> None:
    _dress(axis, "Predicted and real", "real, ms", "predicted, ms")
    low, high = min(real.min(), predicted.min()) * 0.8, max(real.max(), predicted.max()) * 1.25
    axis.plot([low, high], [low, high], color=SOFT, linewidth=1, zorder=3)
    for kind, colour in COLOURS.items():
        mine = kinds == kind
        if mine.any():
            axis.plot(real[mine], predicted[mine], ".", color=colour, markersize=4, alpha=0.5, label=kind)
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axis.grid(which="minor", visible=False)
    ticks = [tick for tick in _round_numbers(low, high) if low <= tick <= high]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.legend(frameon=False, labelcolor=SOFT, markerscale=3)


def _round_numbers(low: float, high: float) -> list[float]:
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5)]


def _draw_residuals(axis: Axes, ratios: NDArray[np.float64], kinds: NDArray[np.str_]) -> None:
    _dress(
        axis, "Residuals", f"real over predicted (those beyond {SHOWN[1]:g} stand there)", "share of steps"
    )
    edges = np.linspace(*SHOWN, 61)
    for name, mine, colour in (
        ("decode", kinds == "decode", COLOURS["decode"]),
        ("with prompts", kinds != "decode", COLOURS["mixed"]),
    ):
        if mine.any():
            shown = np.clip(ratios[mine], *SHOWN)
            axis.hist(
                shown,
                bins=edges.tolist(),
                weights=np.full(len(shown), 1 / len(shown)),
                color=colour,
                alpha=0.55,
                label=name,
            )
    axis.axvline(1, color=SOFT, linewidth=1)
    axis.set_xlim(*SHOWN)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.legend(frameon=False, labelcolor=SOFT)


def _draw_linear(
    axis: Axes, report: FitReport, missed_ms: NDArray[np.float64], kinds: NDArray[np.str_]
) -> None:
    """The curve, and what the steps leave for it: their real time less all other terms."""
    _dress(axis, "Linear part", "tokens in the step", "ms, other terms taken off")
    tokens = np.array([step.shape.decode_tokens + step.shape.prefill_tokens for step in report.steps])
    top = int(tokens.max())
    curve = linear_seconds(report.profile, top) * 1e3
    observed = curve[tokens] + missed_ms
    for kind, colour in COLOURS.items():
        mine = kinds == kind
        axis.plot(tokens[mine], observed[mine], ".", color=colour, markersize=4, alpha=0.4)
    axis.plot(np.arange(1, top + 1), curve[1:], color=INK, linewidth=1.6)
    axis.set_xlim(0, top * 1.02)
    axis.set_ylim(min(0.0, float(np.quantile(observed, 0.001))), float(np.quantile(observed, 0.999)) * 1.1)


def _draw_time(axis: Axes, report: FitReport, ratios: NDArray[np.float64], kinds: NDArray[np.str_]) -> None:
    _dress(axis, "Residuals over the run", "seconds since its first step", "real over predicted")
    start = report.steps[0].start_ns
    at = np.array([(step.start_ns - start) / NS_PER_S for step in report.steps])
    shown = np.clip(ratios, *SHOWN)
    for kind, colour in COLOURS.items():
        mine = kinds == kind
        axis.plot(at[mine], shown[mine], ".", color=colour, markersize=4, alpha=0.4)
    if len(shown) >= WINDOW:
        windows = np.lib.stride_tricks.sliding_window_view(shown, WINDOW)
        axis.plot(
            at[WINDOW // 2 : -(WINDOW // 2)],
            np.median(windows, axis=1),
            color=INK,
            linewidth=1.6,
            label=f"median of {WINDOW} steps",
        )
        axis.legend(frameon=False, labelcolor=SOFT, loc="upper right")
    axis.axhline(1, color=SOFT, linewidth=1)
    axis.set_ylim(*SHOWN)


def _dress(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    axis.set_xlabel(x, color=SOFT)
    axis.set_ylabel(y, color=SOFT)
    axis.tick_params(colors=SOFT, length=0)
    axis.grid(color=GRID)
    axis.set_axisbelow(True)
    for side in axis.spines.values():
        side.set_visible(False)
