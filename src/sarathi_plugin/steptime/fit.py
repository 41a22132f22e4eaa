"""A step-time profile fitted to the recorded steps of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.steptime.calibration import TRAFFIC_KINDS, Errors, FitReport, assess, errors
from sarathi_plugin.steptime.profile import ModelFacts, Provenance, Residuals, StepTimeProfile
from sarathi_plugin.steptime.residuals import residual_quantiles
from sarathi_plugin.steptime.samples import Samples, choose_knots, samples_of
from sarathi_plugin.steptime.staircase import non_negative_least_squares

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sarathi_plugin.records import StepRecord

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

WARM_UP = 20
"""First steps of a run, in which kernels are chosen and caches are cold. Step numbers start again with a new run."""

LEAST_STEPS = 200
LEAST_OF_KIND = 30
"""Fewer usable steps, or of those with or those without prompt tokens, make no profile."""

OUTLIER = 4.0
"""A step of more than this multiple of its prediction, or less than one part in so many, is no step of this machine:
the process was stopped, or the clock was."""

BLOCK = 50
TOTALS = 30.0
"""How much more than all single steps the two sums (decodes, steps with prompts) weigh: what bias a fit would have is
divided by its square."""

FLOOR_S = 1e-6
"""No step is predicted to be shorter."""

HOST_SHARE = 0.95
"""Gaps between steps above this quantile are hiccups, not host work."""

FEWEST_GAPS = 20


def fit_profile(
    steps: Sequence[StepRecord],
    *,
    name: str,
    model: ModelFacts,
    hardware: str,
    memory_bytes: int,
    vllm_version: str,
    source: str,
    tensor_parallel: int = 1,
    frontend_s: float = 0.0,
    traffic: Sequence[bool] | None = None,
) -> tuple[StepTimeProfile, FitReport]:
    """The profile of the machine that ran these steps, and how well it tells them.

    steps: of one run, in order, or of several, one after the other. traffic: for each, whether it ran under traffic;
    the others met shapes of a grid. Where there is enough traffic, its sums are the ones that come out exact. Raises
    ConfigError when there are too few steps, or too few of a kind.
    """
    at, dropped = _usable(steps)
    usable = [steps[i] for i in at]
    samples = samples_of(usable, traffic and [traffic[i] for i in at])
    _check(samples)
    knots = choose_knots(samples)
    found, kept = _robust_fit(samples, knots)
    dropped[f"beyond {OUTLIER:.0f} times their prediction or under a quarter"] = int((~kept).sum())
    samples = samples.take(kept)
    _check(samples)
    used = [step for step, keep in zip(usable, kept.tolist(), strict=True) if keep]
    ratios = samples.seconds / _predict(samples, knots, found)
    held_out = _held_out(samples)
    host_s, host_request_s = (_round(seconds) for seconds in host_times(steps))
    profile = StepTimeProfile(
        name=name,
        model=model,
        hardware=hardware,
        memory_bytes=memory_bytes,
        tensor_parallel=tensor_parallel,
        vllm_version=vllm_version,
        host_s=host_s,
        host_request_s=host_request_s,
        frontend_s=frontend_s,
        residuals=_residuals(samples, ratios),
        provenance=_provenance(source, samples, ratios, held_out, knots),
        **_coefficients(knots, found),
    )
    report = assess(
        profile,
        used,
        dropped=dropped,
        held_out=held_out,
        traffic=samples.traffic,
        from_grid=_from_grid(samples),
    )
    return profile, report


def _residuals(samples: Samples, ratios: Array) -> Residuals:
    prompts = samples.prompts
    return Residuals(decode=residual_quantiles(ratios[~prompts]), prefill=residual_quantiles(ratios[prompts]))


def _coefficients(knots: Sequence[int], found: Array) -> dict[str, Any]:
    """What was solved for, as the fields of a profile."""
    values = np.maximum(np.cumsum(found[: len(knots)]), FLOOR_S)
    fields = (
        "decode_step_s",
        "decode_row_s",
        "decode_context_token_s",
        "prefill_step_s",
        "prefill_token_s",
        "prefill_pair_s",
    )
    terms = {name: _round(value) for name, value in zip(fields, found[len(knots) :].tolist(), strict=True)}
    return {"linear_s": [(n, _round(s)) for n, s in zip(knots, values.tolist(), strict=True)], **terms}


def _usable(steps: Sequence[StepRecord]) -> tuple[list[int], dict[str, int]]:
    """Where the steps are that say something about the machine, and how many do not, by reason."""
    dropped = {"of the warm-up": 0, "empty": 0, "under stock decisions (fallback)": 0, "without duration": 0}
    kept: list[int] = []
    since, last = 0, 0
    for at, step in enumerate(steps):
        since = since + 1 if step.step > last else 1
        last = step.step
        if since <= WARM_UP:
            dropped["of the warm-up"] += 1
        elif step.shape.kind == "empty":
            dropped["empty"] += 1
        elif step.fallback:
            dropped["under stock decisions (fallback)"] += 1
        elif step.duration_ns <= 0:
            dropped["without duration"] += 1
        else:
            kept.append(at)
    return kept, dropped


def _check(samples: Samples) -> None:
    count, prompts = len(samples.seconds), int(samples.prompts.sum())
    if count < LEAST_STEPS:
        raise ConfigError(
            f"A step-time profile needs {LEAST_STEPS} or more usable steps after the first {WARM_UP}, and this run "
            f"has {count}: record a longer one."
        )
    for kind, steps in (("with", prompts), ("without", count - prompts)):
        if steps < LEAST_OF_KIND:
            raise ConfigError(
                f"A step-time profile needs {LEAST_OF_KIND} or more steps {kind} prompt tokens, and this run has "
                f"{steps}: record one with both long answers and long prompts."
            )


def _robust_fit(samples: Samples, knots: Sequence[int]) -> tuple[Array, Mask]:
    """Coefficients, and which steps they rest on.

    First relative errors, in which no long outlier weighs more than one; then, without outliers, weights of one over
    the prediction (over the duration, noise itself would pull the curve down) and the sums held.
    """
    design = samples.design(knots)
    found = non_negative_least_squares(design / samples.seconds[:, None], np.ones_like(samples.seconds))
    kept = np.ones(len(samples.seconds), bool)
    for _ in range(2):
        predicted = np.maximum(design @ found, FLOOR_S)
        ratio = samples.seconds / predicted
        kept = (ratio < OUTLIER) & (ratio > 1 / OUTLIER)
        found = _fit_with_sums(design[kept], samples.take(kept), 1 / np.sqrt(predicted[kept]))
    return found, kept


def _fit_with_sums(design: Array, samples: Samples, weights: Array) -> Array:
    """Least squares in which the sums over decodes and over steps with prompts come out (nearly) exact.

    The sums are those of traffic, where there is enough of it: a server meets traffic, and never a grid.
    """
    heavy = TOTALS * float(np.linalg.norm(weights * samples.seconds))
    rows, target = [design * weights[:, None]], [samples.seconds * weights]
    for kind in (samples.prompts, ~samples.prompts):
        of_traffic = kind & samples.traffic
        mask = of_traffic if of_traffic.sum() >= LEAST_OF_KIND else kind
        total = float(samples.seconds[mask].sum())
        if total > 0:
            rows.append(heavy * design[mask].sum(axis=0, keepdims=True) / total)
            target.append(np.array([heavy]))
    return non_negative_least_squares(np.vstack(rows), np.concatenate(target))


def _predict(samples: Samples, knots: Sequence[int], found: Array) -> Array:
    return np.asarray(np.maximum(samples.design(knots) @ found, FLOOR_S), np.float64)


def _held_out(samples: Samples) -> Errors:
    """Errors on the odd blocks of steps, of a fit to the even ones."""
    odd = np.arange(len(samples.seconds)) // BLOCK % 2 == 1
    return _fitted_to(samples.take(~odd))(samples.take(odd))


def _from_grid(samples: Samples) -> dict[str, Errors]:
    """Errors on the steps of traffic, by kind, of a fit to the others alone; empty without enough of them."""
    grid = samples.take(~samples.traffic)
    if min(grid.prompts.sum(), (~grid.prompts).sum()) < LEAST_OF_KIND:
        return {}
    errors_on = _fitted_to(grid)
    kinds = zip(TRAFFIC_KINDS, (~samples.prompts, samples.prompts), strict=True)
    tests = {kind: samples.take(mask & samples.traffic) for kind, mask in kinds}
    return {kind: errors_on(test) for kind, test in tests.items() if len(test.seconds)}


def _fitted_to(train: Samples) -> Callable[[Samples], Errors]:
    """From some steps to a function that gives the errors on others."""
    knots = choose_knots(train)
    found, _ = _robust_fit(train, knots)

    def errors_on(test: Samples) -> Errors:
        seconds = (_predict(test, knots, found), test.seconds)
        predicted, real = ((part * NS_PER_S).astype(np.int64) for part in seconds)
        return errors(predicted, real)

    return errors_on


def host_times(steps: Sequence[StepRecord]) -> tuple[float, float]:
    """Host time between two steps: (constant, per running request), seconds; zeros when too few follow at once.

    A gap counts when the later step carries a decode: that request ran in the step before or earlier, so nobody was
    waiting for work to come. The engine's run-ahead (async scheduling) leaves no gap: its host time is overlapped.
    """
    gaps, running = [], []
    for before, after in zip(steps[WARM_UP:], steps[WARM_UP + 1 :], strict=False):
        at_once = after.step == before.step + 1 and before.shape.kind != "empty"
        if at_once and after.shape.decode_rows:
            gaps.append((after.start_ns - before.end_ns) / NS_PER_S)
            running.append(float(after.running))
    if len(gaps) < FEWEST_GAPS:
        return 0.0, 0.0
    seconds, requests = np.maximum(gaps, 0.0), np.array(running)
    usual = seconds <= np.quantile(seconds, HOST_SHARE)
    rows = np.stack([np.ones(int(usual.sum())), requests[usual]], axis=1)
    constant, per_request = non_negative_least_squares(rows, seconds[usual]).tolist()
    return constant, per_request


def _provenance(
    source: str, samples: Samples, ratios: Array, held_out: Errors, knots: Sequence[int]
) -> Provenance:
    mean_error = float(np.abs(1 / ratios - 1).mean())
    return Provenance(
        source=source,
        method="non-negative least squares over ramps of the step's tokens and six terms; the sums over decodes "
        "and over steps with prompts held; residuals and host time from the same run",
        measured=f"durations of {len(samples.seconds)} steps, {int(samples.prompts.sum())} of them with prompt "
        f"tokens, {int(samples.tokens.min())} to {int(samples.tokens.max())} tokens, and the host time between them",
        fitted=f"{len(knots)} knots; mean error {mean_error:.1%}; held out: mean error {held_out.mean_error:.1%}, "
        f"sum ratio {held_out.sum_ratio:.3f}",
    )


def _round(value: float) -> float:
    return float(f"{value:.6g}")
