"""Profiles fitted to recorded steps: known machines are found again, sums come out, odd steps are left out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S, StepShape
from sarathi_plugin.records import StepRecord
from sarathi_plugin.steptime.calibration import FitReport
from sarathi_plugin.steptime.fit import (
    FEWEST_GAPS,
    LEAST_OF_KIND,
    LEAST_STEPS,
    WARM_UP,
    fit_profile,
    host_times,
)
from sarathi_plugin.steptime.machine import ProfileModel
from sarathi_plugin.steptime.profile import StepTimeProfile
from sarathi_plugin.steptime.samples import choose_knots, samples_of
from tests.unit.steptime.machines import FACTS, profile, record, recorded, shapes

TRUTH = profile()


def fitted(steps: list[StepRecord], traffic: list[bool] | None = None) -> tuple[StepTimeProfile, FitReport]:
    return fit_profile(
        steps,
        name="fitted",
        model=FACTS,
        hardware="a machine",
        memory_bytes=10**9,
        vllm_version="0.32.0",
        source="a test",
        traffic=traffic,
    )


def run(seed: int, count: int = 2000, sigma: float = 0.0, **more: tuple[float, float]) -> list[StepRecord]:
    rng = np.random.default_rng(seed)
    return recorded(TRUTH, shapes(count, rng), rng, sigma=sigma, **more)


def relative_errors(found: StepTimeProfile, seed: int = 99) -> np.ndarray:
    """Against the truth, on steps that were not recorded."""
    fresh = shapes(500, np.random.default_rng(seed))
    model, truth = ProfileModel(found), ProfileModel(TRUTH)
    return np.array([model.predict_ns(s) / truth.predict_ns(s) - 1 for s in fresh])


@pytest.mark.parametrize("seed", range(3))
def test_a_quiet_machine_is_found_again_with_its_stairs(seed: int):
    found, report = fitted(run(seed))
    errors = np.abs(relative_errors(found))
    assert errors.mean() < 0.005
    assert errors.max() < 0.05
    assert report.overall.mean_error < 0.005
    assert report.held_out is not None
    assert report.held_out.mean_error < 0.01
    model = ProfileModel(found)
    for edge in (64, 128, 256):
        before, after = (model.predict_ns(StepShape(0, 0, 0, n, n * n / 2)) for n in (edge, edge + 1))
        assert after / before > 1.1, edge


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_averaged_out_and_kept_as_residuals(seed: int):
    found, report = fitted(run(seed, sigma=0.1))
    errors = relative_errors(found)
    assert np.abs(errors).mean() < 0.02
    assert abs(errors.mean()) < 0.01
    assert 0.06 < report.overall.mean_error < 0.1
    for quantiles in (found.residuals.decode, found.residuals.prefill):
        assert len(quantiles) == 41
        assert quantiles[20] == pytest.approx(1.0, abs=0.02)
        assert quantiles[36] == pytest.approx(np.exp(0.1 * 1.2816), abs=0.03)
        assert np.mean([(a + b) / 2 for a, b in pairwise(quantiles)]) == pytest.approx(1, abs=1e-4)


def test_sums_come_out_over_all_steps_and_over_each_kind():
    """On a machine that no profile can tell: crowded steps with prompts take half as long again."""
    steps = [
        replace(step, end_ns=step.end_ns + step.duration_ns // 2)
        if step.shape.decode_rows > 40 and step.shape.prefill_tokens
        else step
        for step in run(5, sigma=0.2)
    ]
    found, report = fitted(steps)
    model = ProfileModel(found)
    assert report.overall.mean_error > 0.1
    for kind in ({"decode"}, {"mixed", "prefill"}, {"decode", "mixed", "prefill"}):
        mine = [step for step in report.steps if step.shape.kind in kind]
        ratio = sum(model.predict_ns(s.shape) for s in mine) / sum(s.duration_ns for s in mine)
        assert ratio == pytest.approx(1, abs=2e-4)


def test_a_row_costs_more_than_a_token_of_a_prompt():
    """Decodes alone cannot tell a row from a token, and a grid of few small prompts must."""
    found, _ = fitted(run(6, sigma=0.05))
    assert found.decode_row_s == pytest.approx(TRUTH.decode_row_s, rel=0.25)
    model, truth = ProfileModel(found), ProfileModel(TRUTH)
    for rows in (1, 32, 64):
        crowded = StepShape(rows, rows, 500 * rows, 256 - rows, 40_000.0)
        assert model.predict_ns(crowded) == pytest.approx(truth.predict_ns(crowded), rel=0.04)


def with_traffic(grid: int, busy: int, longer: float) -> tuple[list[StepRecord], list[bool]]:
    """A grid of so many steps, then traffic whose steps with prompts take ``longer`` times as long."""
    steps = run(14, count=grid + busy, sigma=0.1)
    found = [
        replace(step, end_ns=step.start_ns + round(longer * step.duration_ns))
        if at >= grid and step.shape.prefill_tokens
        else step
        for at, step in enumerate(steps)
    ]
    return found, [at >= grid for at in range(len(steps))]


def test_a_profile_has_no_bias_on_traffic_however_long_the_grid():
    steps, busy = with_traffic(3000, 300, longer=1.2)
    found, report = fitted(steps, busy)
    model = ProfileModel(found)
    for prompts in (True, False):
        mine = [
            s for s, of in zip(steps, busy, strict=True) if of and (s.shape.prefill_tokens > 0) == prompts
        ]
        ratio = sum(model.predict_ns(s.shape) for s in mine) / sum(s.duration_ns for s in mine)
        assert ratio == pytest.approx(1, abs=1e-3), prompts
    assert {kind: errors.steps for kind, errors in report.traffic.items()} == {
        "decode": sum(of and not s.shape.prefill_tokens for s, of in zip(steps, busy, strict=True)),
        "with prompts": sum(of and s.shape.prefill_tokens > 0 for s, of in zip(steps, busy, strict=True)),
    }
    assert abs(report.traffic["with prompts"].bias) < 0.03
    assert report.from_grid["with prompts"].sum_ratio == pytest.approx(1 / 1.2, abs=0.02)
    assert report.from_grid["decode"].sum_ratio == pytest.approx(1, abs=0.03)
    assert report.warnings == []


def test_a_little_traffic_is_no_measure_of_a_profile_and_its_bias_is_told():
    steps, busy = with_traffic(3000, 30, longer=1.3)
    found, report = fitted(steps, busy)
    without, _ = fitted(steps)
    assert found.linear_s == without.linear_s
    assert report.traffic["with prompts"].steps < LEAST_OF_KIND
    (warning,) = report.warnings
    assert "steps of kind with prompts are predicted at 0." in warning


def test_traffic_alone_is_the_run():
    steps = run(15, sigma=0.1)
    found, report = fitted(steps, [True] * len(steps))
    plain, _ = fitted(steps)
    assert found.linear_s == plain.linear_s
    assert report.traffic == report.from_grid == {}


def test_hiccups_are_left_out_and_counted():
    steps = run(7, sigma=0.05)
    rng = np.random.default_rng(7)
    for at in rng.choice(np.arange(WARM_UP, len(steps)), 60, replace=False).tolist():
        steps[at] = replace(steps[at], end_ns=steps[at].start_ns + 30 * steps[at].duration_ns)
    steps[100] = replace(steps[100], end_ns=steps[100].start_ns + steps[100].duration_ns // 50)
    found, report = fitted(steps)
    assert 60 <= report.dropped["beyond 4 times their prediction or under a quarter"] <= 61
    assert np.abs(relative_errors(found)).mean() < 0.02
    assert max(found.residuals.decode + found.residuals.prefill) < 1.5


def test_warm_up_empty_steps_and_fallbacks_are_left_out():
    steps = run(8)
    for at in range(WARM_UP):
        steps[at] = replace(steps[at], end_ns=steps[at].start_ns + 3 * steps[at].duration_ns)
    for at in range(100, 160):
        steps[at] = replace(steps[at], fallback=True, end_ns=steps[at].start_ns + 3 * steps[at].duration_ns)
    for at in range(200, 210):
        steps[at] = replace(steps[at], shape=StepShape())
    steps[300] = replace(steps[300], end_ns=steps[300].start_ns)
    found, report = fitted(steps)
    assert list(report.dropped.values()) == [WARM_UP, 10, 60, 1, 0]
    assert len(report.steps) == len(steps) - WARM_UP - 71
    assert np.abs(relative_errors(found)).max() < 0.05


def test_every_run_has_a_warm_up_of_its_own():
    _, report = fitted(run(9) + run(10))
    assert report.dropped["of the warm-up"] == 2 * WARM_UP


def test_host_time_is_found_between_steps_that_follow_at_once():
    steps = run(11, host_s=(0.0004, 0.00002))
    assert host_times(steps) == pytest.approx((0.0004, 0.00002), rel=0.01)
    found, _ = fitted(steps)
    assert (found.host_s, found.host_request_s) == pytest.approx((0.0004, 0.00002), rel=0.01)


def test_an_idle_server_is_no_host_time():
    """A second without a request before every tenth step, which is a lone prompt, and one hiccup of ten."""
    todo = shapes(2000, np.random.default_rng(12))
    todo[::10] = [StepShape(0, 0, 0, 100, 5000.0)] * 200
    steps, later = [], 0
    truth = recorded(TRUTH, todo, np.random.default_rng(0), host_s=(0.0004, 0.0))
    for at, step in enumerate(truth):
        later += NS_PER_S if at % 10 == 0 else 10 * NS_PER_S if at == 555 else 0
        steps.append(replace(step, start_ns=step.start_ns + later, end_ns=step.end_ns + later))
    constant, per_request = host_times(steps)
    assert constant == pytest.approx(0.0004, rel=0.02)
    assert per_request == pytest.approx(0, abs=1e-6)


def test_host_time_of_a_run_ahead_engine_is_overlapped():
    """The next step is scheduled before the one in flight ends, so it starts right at its end."""
    assert host_times(run(13)) == (0, 0)


def test_few_gaps_are_no_host_time():
    decode = StepShape(1, 1, 10)
    steps = [record(n, 10_000 * n, 5_000, decode) for n in range(1, WARM_UP + FEWEST_GAPS + 1)]
    assert host_times(steps) == (0, 0)
    steps.append(record(len(steps) + 1, 10_000 * (len(steps) + 1), 5_000, decode))
    constant, per_request = host_times(steps)
    assert constant + per_request == pytest.approx(5e-6)


def test_too_few_steps_are_refused_with_how_many_are_needed():
    with pytest.raises(
        ConfigError, match=rf"needs {LEAST_STEPS} or more usable .* has {LEAST_STEPS - 1}: record"
    ):
        fitted(run(1, count=LEAST_STEPS + WARM_UP - 1))
    with pytest.raises(ConfigError, match="this run has 0: record"):
        fitted([])


@pytest.mark.parametrize(("prompts", "missing"), [(False, "with"), (True, "without")])
def test_a_run_of_one_kind_is_refused(prompts: bool, missing: str):
    steps = [step for step in run(2) if (step.shape.prefill_tokens > 0) == prompts]
    with pytest.raises(
        ConfigError,
        match=rf"needs {LEAST_OF_KIND} or more steps {missing} prompt tokens, and this run has 0:",
    ):
        fitted(steps)


def test_it_says_what_it_rests_on():
    found, _ = fitted(run(3, sigma=0.05))
    assert (found.provenance.source, found.vllm_version, found.tensor_parallel) == ("a test", "0.32.0", 1)
    assert "held out: mean error" in found.provenance.fitted
    assert not found.provenance.assumed


def test_a_stair_is_looked_for_where_steps_lie_on_both_sides_of_an_edge():
    sizes = [40] * 40 + [100] * 40 + [300] * 40
    samples = samples_of([record(n, n, 1, StepShape(0, 0, 0, size, 0.0)) for n, size in enumerate(sizes)])
    assert choose_knots(samples) == [40, 64, 65, 100, 300]
