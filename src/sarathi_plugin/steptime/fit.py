"""A step-time profile fitted to the recorded steps of a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.steptime.calibration import Errors, FitReport, assess, errors
from sarathi_plugin.steptime.profile import ModelFacts, Provenance, Residuals, StepTimeProfile
from sarathi_plugin.steptime.residuals import residual_quantiles
from sarathi_plugin.steptime.staircase import non_negative_least_squares, ramps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sarathi_plugin.core import StepRecord

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

WARM_UP = 20
"""First steps of a run, in which kernels are chosen and caches are cold."""

LEAST_STEPS = 200
LEAST_OF_KIND = 30
"""Fewer usable steps, or of those with or those without prompt tokens, make no profile."""

OUTLIER = 4.0
"""A step of more than this multiple of its prediction, or less than one part in so many, is no step of this machine:
the process was stopped, or the clock was."""

BLOCK = 50
TILES = ((64, 1024), (128, 4096))
"""Widths of stairs looked for, and up to how many tokens (see ``vidur.TILES``)."""

LEAST_IN_TILE = 8
KNOTS = 32
STEPS_PER_KNOT = 25
TOTALS = 30.0
"""How much more than all single steps the two sums (decodes, steps with prompts) weigh: what bias a fit would have is
divided by its square. Far more would drown the single steps in rounding."""

HOST_SHARE = 0.95
"""Gaps between steps above this quantile are hiccups, not host work."""

FEWEST_GAPS = 20


@dataclass(frozen=True, slots=True)
class Samples:
    """Steps as columns, each of shape (steps,)."""

    seconds: Array
    tokens: Array
    rows: Array
    context: Array
    prefill: Array
    pairs: Array

    def take(self, mask: Mask) -> Samples:
        """Some of them."""
        columns = (self.seconds, self.tokens, self.rows, self.context, self.prefill, self.pairs)
        return Samples(*(column[mask] for column in columns))

    @property
    def prompts(self) -> Mask:
        """Which carry prompt tokens."""
        return self.prefill > 0

    def design(self, knots: Sequence[int]) -> Array:
        """Shape (steps, knots + 5): the ramps of the linear part, then the five terms of a profile."""
        terms = np.stack(
            [self.rows > 0, self.context, self.prompts, self.prefill, self.pairs], axis=1, dtype=np.float64
        )
        return np.hstack([ramps(self.tokens, knots), terms])


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
) -> tuple[StepTimeProfile, FitReport]:
    """The profile of the machine that ran these steps, and how well it tells them.

    steps: of one run, in order. Raises ConfigError when there are too few, or too few of a kind.
    """
    usable, dropped = _usable(steps)
    samples = _samples(usable)
    _check(samples)
    knots = choose_knots(samples)
    found, kept = _robust_fit(samples, knots)
    dropped[f"beyond {OUTLIER:.0f} times their prediction or under a quarter"] = int((~kept).sum())
    samples = samples.take(kept)
    _check(samples)
    used = [step for step, keep in zip(usable, kept.tolist(), strict=True) if keep]
    ratios = samples.seconds / _predict(samples, knots, found)
    held_out = _held_out(samples)
    host_s, host_request_s = host_times(steps)
    values = np.maximum(np.cumsum(found[: len(knots)]), 1e-6)
    decode_step, context, prefill_step, prefill_token, pair = found[len(knots) :].tolist()
    profile = StepTimeProfile(
        name=name,
        model=model,
        hardware=hardware,
        memory_bytes=memory_bytes,
        tensor_parallel=tensor_parallel,
        vllm_version=vllm_version,
        linear_s=[(n, _round(s)) for n, s in zip(knots, values.tolist(), strict=True)],
        decode_step_s=_round(decode_step),
        decode_context_token_s=_round(context),
        prefill_step_s=_round(prefill_step),
        prefill_token_s=_round(prefill_token),
        prefill_pair_s=_round(pair),
        host_s=_round(host_s),
        host_request_s=_round(host_request_s),
        frontend_s=frontend_s,
        residuals=Residuals(
            decode=residual_quantiles(ratios[~samples.prompts]),
            prefill=residual_quantiles(ratios[samples.prompts]),
        ),
        provenance=_provenance(source, samples, ratios, held_out, knots),
    )
    return profile, assess(profile, used, dropped=dropped, held_out=held_out)


def _usable(steps: Sequence[StepRecord]) -> tuple[list[StepRecord], dict[str, int]]:
    """Steps that say something about the machine, and how many do not, by reason."""
    dropped = {"of the warm-up": 0, "empty": 0, "under stock decisions (fallback)": 0, "without duration": 0}
    kept = []
    for at, step in enumerate(steps):
        if at < WARM_UP:
            dropped["of the warm-up"] += 1
        elif step.shape.kind == "empty":
            dropped["empty"] += 1
        elif step.fallback:
            dropped["under stock decisions (fallback)"] += 1
        elif step.duration_ns <= 0:
            dropped["without duration"] += 1
        else:
            kept.append(step)
    return kept, dropped


def _samples(steps: Sequence[StepRecord]) -> Samples:
    table = np.array([(step.duration_ns / NS_PER_S, *step.shape) for step in steps], np.float64)
    seconds, rows, decodes, context, prefill, pairs = table.reshape(-1, 6).T
    return Samples(seconds, decodes + prefill, rows, context, prefill, pairs)


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


def choose_knots(samples: Samples) -> list[int]:
    """Token counts at which the linear part may bend: quantiles of those seen, and both sides of tile edges.

    Steps with and without prompts have quantiles of their own. An edge counts if steps were seen on both its sides.
    """
    tokens, prompts = samples.tokens, samples.prompts
    found = {int(tokens.min()), int(tokens.max())}
    for part in (tokens[prompts], tokens[~prompts]):
        count = min(KNOTS, max(2, len(part) // STEPS_PER_KNOT))
        found.update(
            np.quantile(part, np.linspace(0, 1, count), method="nearest").astype(int).tolist()
            if len(part)
            else ()
        )
    low = 0
    for width, upto in TILES:
        for edge in range(low + width, upto + 1, width):
            before = (tokens > edge - width) & (tokens <= edge)
            after = (tokens > edge) & (tokens <= edge + width)
            if min(before.sum(), after.sum()) >= LEAST_IN_TILE:
                found.update((edge, edge + 1))
        low = upto
    return sorted(found)


def _robust_fit(samples: Samples, knots: Sequence[int]) -> tuple[Array, Mask]:
    """Coefficients, and which steps they rest on.

    First relative errors, in which no long outlier weighs more than one; then, without outliers, weights of one over
    the prediction (over the duration, noise itself would pull the curve down) and the sums held.
    """
    design = samples.design(knots)
    found = non_negative_least_squares(design / samples.seconds[:, None], np.ones_like(samples.seconds))
    kept = np.ones(len(samples.seconds), bool)
    for _ in range(2):
        predicted = np.maximum(design @ found, 1e-6)
        ratio = samples.seconds / predicted
        kept = (ratio < OUTLIER) & (ratio > 1 / OUTLIER)
        found = _fit_with_sums(design[kept], samples.take(kept), 1 / np.sqrt(predicted[kept]))
    return found, kept


def _fit_with_sums(design: Array, samples: Samples, weights: Array) -> Array:
    """Least squares in which the sums over decodes and over steps with prompts come out (nearly) exact."""
    heavy = TOTALS * float(np.linalg.norm(weights * samples.seconds))
    rows, target = [design * weights[:, None]], [samples.seconds * weights]
    for mask in (samples.prompts, ~samples.prompts):
        total = float(samples.seconds[mask].sum())
        if total > 0:
            rows.append(heavy * design[mask].sum(axis=0, keepdims=True) / total)
            target.append(np.array([heavy]))
    return non_negative_least_squares(np.vstack(rows), np.concatenate(target))


def _predict(samples: Samples, knots: Sequence[int], found: Array) -> Array:
    return np.asarray(np.maximum(samples.design(knots) @ found, 1e-6), np.float64)


def _held_out(samples: Samples) -> Errors:
    """Errors on the odd blocks of steps, of a fit to the even ones."""
    odd = np.arange(len(samples.seconds)) // BLOCK % 2 == 1
    train, test = samples.take(~odd), samples.take(odd)
    knots = choose_knots(train)
    found, _ = _robust_fit(train, knots)
    nanoseconds = [
        (part * NS_PER_S).astype(np.int64) for part in (_predict(test, knots, found), test.seconds)
    ]
    return errors(nanoseconds[0], nanoseconds[1])


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
        method="non-negative least squares over ramps of the step's tokens and five terms; the sums over decodes "
        "and over steps with prompts held; residuals and host time from the same run",
        measured=f"durations of {len(samples.seconds)} steps, {int(samples.prompts.sum())} of them with prompt "
        f"tokens, {int(samples.tokens.min())} to {int(samples.tokens.max())} tokens, and the host time between them",
        fitted=f"{len(knots)} knots; mean error {mean_error:.1%}; held out: mean error {held_out.mean_error:.1%}, "
        f"sum ratio {held_out.sum_ratio:.3f}",
    )


def _round(value: float) -> float:
    return float(f"{value:.6g}")
