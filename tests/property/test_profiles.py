"""Step-time profiles, whatever is in them: no token makes a step shorter, draws keep the mean, files come back."""

from __future__ import annotations

import tempfile
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarathi_plugin.core import Chunk, StepShape
from sarathi_plugin.steptime.fit import fit_profile
from sarathi_plugin.steptime.machine import ProfileModel, online_from
from sarathi_plugin.steptime.profile import (
    ModelFacts,
    Provenance,
    Residuals,
    StepTimeProfile,
    read_profile,
    save_profile,
)
from sarathi_plugin.steptime.residuals import QUANTILES, lognormal_quantiles, residual_quantiles
from tests.unit.steptime.machines import FACTS, recorded, shapes

SMALL = st.floats(0, 1e-3)


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[int, float]]:
    """Any staircase: token counts that ascend, times that never fall."""
    tokens = sorted(draw(st.sets(st.integers(1, 5000), min_size=1, max_size=12)))
    rises = draw(st.lists(st.floats(0, 0.01), min_size=len(tokens), max_size=len(tokens)))
    return list(zip(tokens, accumulate(rises, initial=draw(st.floats(1e-4, 0.05))), strict=False))


PROFILES = st.builds(
    StepTimeProfile,
    name=st.text(max_size=10),
    model=st.just(FACTS),
    hardware=st.just("a machine"),
    memory_bytes=st.integers(1, 10**12),
    tensor_parallel=st.sampled_from([1, 2, 4]),
    linear_s=tables(),
    decode_step_s=SMALL,
    decode_row_s=st.floats(0, 1e-4),
    decode_context_token_s=st.floats(0, 1e-6),
    prefill_step_s=SMALL,
    prefill_token_s=st.floats(0, 1e-4),
    prefill_pair_s=st.floats(0, 1e-7),
    host_s=SMALL,
    residuals=st.builds(
        Residuals, decode=st.lists(st.floats(0.1, 9), min_size=2, max_size=9).map(sorted), prefill=st.just([])
    ),
    provenance=st.just(Provenance(source="any", method="any")),
)


@settings(deadline=None, max_examples=40)
@given(
    profile=PROFILES,
    decodes=st.integers(0, 256),
    context=st.integers(0, 100_000),
    chunks=st.lists(st.integers(0, 60_000), min_size=2, max_size=6),
)
def test_no_token_ever_makes_a_step_shorter(
    profile: StepTimeProfile, decodes: int, context: int, chunks: list[int]
):
    for model in (ProfileModel(profile), online_from(profile)):
        empty = StepShape(decodes, decodes, context)
        times = [model.predict_ns(empty.with_chunk(Chunk(n, 500))) for n in sorted(chunks)]
        assert all(isinstance(t, int) and t >= 0 for t in times)
        assert all(a <= b for a, b in pairwise(times))
        if decodes:
            more = StepShape(decodes + 1, decodes + 1, context + 100)
            assert model.predict_ns(more) >= model.predict_ns(empty)


@settings(deadline=None, max_examples=40)
@given(profile=PROFILES)
def test_what_is_saved_comes_back(profile: StepTimeProfile):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        save_profile(profile, path)
        assert read_profile(str(path)) == profile


@settings(deadline=None, max_examples=40)
@given(profile=PROFILES, uniform=st.floats(0, 1, exclude_max=True))
def test_a_draw_lies_between_the_ends_of_the_residuals(profile: StepTimeProfile, uniform: float):
    model, shape = ProfileModel(profile), StepShape(4, 4, 1000)
    expected, ends = model.predict_ns(shape), profile.residuals.decode
    drawn = model.draw_ns(shape, uniform)
    assert expected * ends[0] * (1 - 1e-9) - 2 <= drawn <= (expected + 1) * ends[-1] * (1 + 1e-9) + 2


@given(ratios=st.lists(st.floats(0.25, 4), min_size=1, max_size=300))
def test_residuals_ascend_have_mean_one_and_stay_within_what_was_seen(ratios: list[float]):
    found = residual_quantiles(np.array(ratios))
    assert len(found) == QUANTILES
    Residuals(decode=found)
    assert np.mean([(a + b) / 2 for a, b in pairwise(found)]) == pytest.approx(1, abs=1e-4)
    assert found[-1] / found[0] <= max(ratios) / min(ratios) * (1 + 1e-3)


@given(sigma=st.floats(0, 0.5))
def test_lognormal_residuals_have_mean_one_and_their_sigma(sigma: float):
    found = lognormal_quantiles(sigma)
    Residuals(decode=found)
    assert np.mean([(a + b) / 2 for a, b in pairwise(found)]) == pytest.approx(1, abs=1e-4)
    assert np.log(found[34] / found[6]) == pytest.approx(2 * 1.0364 * sigma, abs=1e-3)  # 15 % and 85 %


def test_drawn_residuals_of_a_heavy_tail_keep_its_mean():
    rng = np.random.default_rng(0)
    ratios = rng.lognormal(0, 0.1, 4000)
    ratios[:20] *= 3
    found = residual_quantiles(ratios / ratios.mean())
    assert found[20] == pytest.approx(np.median(ratios) / ratios.mean(), rel=0.002)


@settings(deadline=None, max_examples=10)
@given(profile=PROFILES, seed=st.integers(0, 1000), sigma=st.floats(0, 0.3))
def test_any_machine_is_fitted_with_its_sum(profile: StepTimeProfile, seed: int, sigma: float):
    rng = np.random.default_rng(seed)
    steps = recorded(profile, shapes(400, rng), rng, sigma=sigma)
    found, report = fit_profile(
        steps, name="", model=FACTS, hardware="", memory_bytes=1, vllm_version="", source=""
    )
    assert isinstance(found.model, ModelFacts)
    assert report.overall.sum_ratio == pytest.approx(1, abs=0.005)
    assert report.overall.mean_error < 0.05 + 1.2 * sigma
