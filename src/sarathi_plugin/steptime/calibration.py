"""How well a profile tells the steps of a run: errors by region, held-out errors, the worst steps.

Two figures belong together (a fit with a small mean error can still make every run too short): the mean absolute
error of a step, and the ratio of the sums, predicted over real.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.outputs import writing
from sarathi_plugin.steptime.machine import ProfileModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sarathi_plugin.core import StepKind
    from sarathi_plugin.records import StepRecord
    from sarathi_plugin.steptime.profile import StepTimeProfile

KINDS: tuple[StepKind, ...] = ("decode", "mixed", "prefill")
ROWS = (0, 8, 32, 64, 128)
TOKENS = (0, 64, 256, 512, 1024, 2048)
"""Upper edges of the bins of decode rows and prompt tokens; one more bin goes beyond."""

TRAFFIC_KINDS = ("decode", "with prompts")
MOST_BIAS = 0.1
"""Mean of predicted over real, minus one, beyond which a profile is no guide to a server under traffic."""

MOST_HELD_OUT = 0.3
"""Mean error of a step that was not fitted to, beyond which a profile tells steps no better than a guess.

Recordings of an idle machine give 0.1 to 0.2.
"""

WORST = 10
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of some steps. sum_ratio: predicted over real time. mean_error: of |predicted / real - 1|.

    bias: mean of predicted / real - 1. time_share: share of the real time of the run that these steps took.
    """

    steps: int
    time_share: float
    sum_ratio: float
    mean_error: float
    bias: float


@dataclass(frozen=True, slots=True)
class Region:
    """Errors of one kind of step within a range of decode rows and of prompt tokens (as text)."""

    kind: StepKind
    decode_rows: str
    prefill_tokens: str
    errors: Errors


@dataclass(frozen=True, slots=True, eq=False)
class FitReport:
    """A profile against the steps of a run.

    steps: those that were used, in order; predicted_ns: for each. dropped: how many were left out, by reason.
    held_out: errors on the odd blocks of steps of a fit to the even ones (None for a profile from elsewhere).
    traffic: errors on the steps under traffic by ``TRAFFIC_KINDS``, where others were there too; from_grid: on the same
    steps, of a fit to those others.
    residual_quantiles: (decode, with prompts), real over predicted at ``QUANTILES``.
    """

    profile: StepTimeProfile
    steps: tuple[StepRecord, ...]
    predicted_ns: NDArray[np.int64]
    dropped: Mapping[str, int]
    overall: Errors
    by_kind: Mapping[StepKind, Errors]
    regions: tuple[Region, ...]
    held_out: Errors | None
    residual_quantiles: tuple[tuple[float, ...], tuple[float, ...]]
    traffic: Mapping[str, Errors]
    from_grid: Mapping[str, Errors]

    @property
    def warnings(self) -> list[str]:
        """A sentence for a fit that does not hold, and for each kind of step predicted with a bias under traffic."""
        held = self.held_out
        does_not_hold = (
            [
                f"Warning: steps that were not fitted to are off by {held.mean_error:.0%} in the mean: the recording "
                "is too short, or the machine was busy; record more steps with nothing else running."
            ]
            if held is not None and held.mean_error > MOST_HELD_OUT
            else []
        )
        return does_not_hold + [
            f"Warning: under traffic, steps of kind {kind} are predicted at {1 + found.bias:.2f} times their time in "
            "the mean; capacities predicted with this profile may be off by as much."
            for kind, found in self.traffic.items()
            if abs(found.bias) > MOST_BIAS
        ]

    @property
    def worst(self) -> list[tuple[StepRecord, int]]:
        """The steps with the largest differences, in time, and what was predicted for them (nanoseconds)."""
        off = np.abs([step.duration_ns for step in self.steps] - self.predicted_ns)
        return [(self.steps[i], int(self.predicted_ns[i])) for i in np.argsort(-off)[:WORST].tolist()]


def assess(
    profile: StepTimeProfile,
    steps: Sequence[StepRecord],
    *,
    dropped: Mapping[str, int] | None = None,
    held_out: Errors | None = None,
    traffic: Sequence[bool] | NDArray[np.bool_] | None = None,
    from_grid: Mapping[str, Errors] | None = None,
) -> FitReport:
    """Compare a profile with steps that carried something. Raises ConfigError without any.

    traffic: for each step, whether it ran under traffic (None: all or none did).
    """
    useful = [step.shape.kind != "empty" and step.duration_ns > 0 for step in steps]
    kept = tuple(step for step, use in zip(steps, useful, strict=True) if use)
    if not kept:
        raise ConfigError(
            "There is no step to compare the profile with: give a recording of a loaded server."
        )
    model = ProfileModel(profile)
    predicted = np.array([model.predict_ns(step.shape) for step in kept], np.int64)
    real = np.array([step.duration_ns for step in kept], np.int64)
    kinds = np.array([step.shape.kind for step in kept])
    total = float(real.sum())
    by_kind = {k: errors(predicted[kinds == k], real[kinds == k], total) for k in KINDS if (kinds == k).any()}
    ratios = real / np.maximum(predicted, 1)
    prompts = kinds != "decode"
    busy = np.zeros(len(kept), bool) if traffic is None else np.asarray(traffic, bool)[useful]
    under_traffic = {
        kind: errors(predicted[mask & busy], real[mask & busy], total)
        for kind, mask in zip(TRAFFIC_KINDS, (~prompts, prompts), strict=True)
        if (mask & busy).any() and not busy.all()
    }
    quantiles = tuple(
        tuple(np.quantile(ratios[mask], QUANTILES).tolist()) if mask.any() else ()
        for mask in (~prompts, prompts)
    )
    return FitReport(
        profile=profile,
        steps=kept,
        predicted_ns=predicted,
        dropped=dict(dropped or {}),
        overall=errors(predicted, real, total),
        by_kind=by_kind,
        regions=_regions(kept, predicted, real),
        held_out=held_out,
        residual_quantiles=(quantiles[0], quantiles[1]),
        traffic=under_traffic,
        from_grid=dict(from_grid or {}),
    )


def errors(predicted: NDArray[np.int64], real: NDArray[np.int64], total: float | None = None) -> Errors:
    """Errors of steps: predicted and real durations in nanoseconds, shape (steps,), one or more."""
    relative = predicted / real - 1
    spent = float(real.sum())
    return Errors(
        steps=len(real),
        time_share=spent / (total or spent),
        sum_ratio=float(predicted.sum()) / spent,
        mean_error=float(np.abs(relative).mean()),
        bias=float(relative.mean()),
    )


def _regions(
    steps: Sequence[StepRecord], predicted: NDArray[np.int64], real: NDArray[np.int64]
) -> tuple[Region, ...]:
    rows = np.searchsorted(ROWS, [step.shape.decode_rows for step in steps])
    tokens = np.searchsorted(TOKENS, [step.shape.prefill_tokens for step in steps])
    kinds = np.array([KINDS.index(step.shape.kind) for step in steps])
    keys = np.stack([kinds, rows, tokens], axis=1)
    total = float(real.sum())
    found = []
    for key in np.unique(keys, axis=0):
        mine = (keys == key).all(axis=1)
        kind, row_bin, token_bin = key.tolist()
        of_region = errors(predicted[mine], real[mine], total)
        found.append(Region(KINDS[kind], _range(ROWS, row_bin), _range(TOKENS, token_bin), of_region))
    return tuple(found)


def _range(edges: Sequence[int], index: int) -> str:
    if index == 0:
        return "0"
    low = edges[index - 1] + 1
    return f"{low}+" if index == len(edges) else f"{low}-{edges[index]}"


def report_text(report: FitReport) -> str:
    """The report as text tables."""
    profile = report.profile
    lines = [
        f"Step-time profile {profile.name}: {profile.model.name} on {profile.hardware}",
        "",
        f"{len(report.steps)} steps used; left out: {_dropped(report.dropped)}.",
        f"Host time between steps: {profile.host_s * 1e3:.3f} ms + {profile.host_request_s * 1e6:.1f} us per "
        "running request.",
        "",
        f"{'steps':34}{'count':>8}{'time':>8}{'sum ratio':>11}{'mean error':>12}{'bias':>8}",
        _row("all", report.overall),
        *(_row(kind, found) for kind, found in report.by_kind.items()),
    ]
    if report.held_out:
        lines.append(_row("held out (fit to the other half)", report.held_out))
    lines += [_row(f"traffic: {kind}", found) for kind, found in report.traffic.items()]
    lines += [_row(f"  by the grid alone: {kind}", found) for kind, found in report.from_grid.items()]
    lines += report.warnings
    lines += ["", "By region: kind, decode rows, prompt tokens"]
    for region in report.regions:
        name = f"{region.kind:<9}{region.decode_rows:>9}{region.prefill_tokens:>12}"
        lines.append(_row(name, region.errors))
    lines += ["", "Real over predicted, quantiles " + " ".join(f"{q:>6.0%}" for q in QUANTILES)]
    for name, values in zip(("decode", "with prompts"), report.residual_quantiles, strict=True):
        lines.append(f"{name:<30} " + " ".join(f"{value:6.2f}" for value in values))
    lines += ["", "Worst steps"]
    for step, predicted in report.worst:
        rows, _, context, prefill, _ = step.shape
        lines.append(
            f"step {step.step}: {step.duration_ns / NS_PER_MS:.2f} ms, predicted {predicted / NS_PER_MS:.2f} ms "
            f"({rows} decodes with {context} tokens of context, {prefill} prompt tokens)"
        )
    return "\n".join(lines) + "\n"


def _dropped(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count) or "none"


def _row(name: str, found: Errors) -> str:
    return (
        f"{name:34}{found.steps:8}{found.time_share:8.1%}{found.sum_ratio:11.4f}{found.mean_error:12.1%}"
        f"{found.bias:+8.1%}"
    )


def write_report(report: FitReport, folder: Path) -> list[Path]:
    """Write ``calibration.txt`` and ``calibration.png``; returns their paths.

    Raises ConfigError when the folder cannot be written to, ModuleNotFoundError without matplotlib.
    """
    from sarathi_plugin.steptime.calibration_picture import draw

    text, picture = folder / "calibration.txt", folder / "calibration.png"
    with writing(folder, "choose another --report"):
        folder.mkdir(parents=True, exist_ok=True)
        text.write_text(report_text(report), encoding="utf-8")
        draw(report, picture)
    return [text, picture]
