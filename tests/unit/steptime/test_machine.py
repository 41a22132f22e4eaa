"""A profile as a function, as a source of random durations, and as the start of a model that learns."""

from __future__ import annotations

import numpy as np
import pytest

from sarathi_plugin.core import NS_PER_S, StepShape
from sarathi_plugin.steptime.machine import (
    TABLE_TOKENS,
    ProfileModel,
    fit_features,
    linear_seconds,
    online_from,
)
from sarathi_plugin.steptime.profile import Residuals, read_profile, shipped_profiles
from tests.unit.steptime.machines import profile, shapes, with_residuals

TRUTH = profile()


def test_a_step_is_the_sum_of_its_terms():
    model = ProfileModel(TRUTH)
    assert model.predict_ns(StepShape()) == 0
    assert model.predict_ns(StepShape(64, 64, 10_000)) == pytest.approx(6e6 + 0.6e6 + 64 * 8e4 + 0.3e6, abs=1)
    prefill = 14e6 + 0.4e6 + 256 * 2e3 + 1e5 * 5
    assert model.predict_ns(StepShape(0, 0, 0, 256, 1e5)) == pytest.approx(prefill, abs=1)
    mixed = 19e6 + 0.6e6 + 8e4 + 0.03e6 + 0.4e6 + 256 * 2e3 + 1e5 * 5
    assert model.predict_ns(StepShape(1, 1, 1000, 256, 1e5)) == pytest.approx(mixed, abs=1)


def test_the_table_is_straight_between_its_entries_and_goes_on_beyond():
    table = linear_seconds(TRUTH, 1000)
    assert table[0] == 0
    assert table[64] == pytest.approx(0.006)
    assert table[65] == pytest.approx(0.008)
    assert table[384] == pytest.approx(0.019 + (384 - 257) / 255 * 0.007)
    slope = (0.026 - 0.012) / (512 - 129)
    assert table[1000] == pytest.approx(0.026 + 488 * slope)
    assert linear_seconds(profile(linear_s=[(8, 0.004)]), 100)[[1, 8, 100]].tolist() == [0.004] * 3


def test_steps_beyond_the_lookup_go_on_with_the_last_slope():
    model = ProfileModel(profile(prefill_token_s=0, prefill_step_s=0))
    last, beyond = (model.predict_ns(StepShape(0, 0, 0, TABLE_TOKENS + n)) for n in (0, 1000))
    assert beyond - last == pytest.approx(1000 * (0.026 - 0.012) / (512 - 129) * NS_PER_S, rel=1e-6)


def test_durations_are_drawn_along_the_residuals_of_the_kind():
    model = ProfileModel(with_residuals())
    decode, prompt = StepShape(8, 8, 800), StepShape(8, 8, 800, 100, 5000)
    expected = model.predict_ns(decode)
    for uniform, ratio in ((0.0, 0.9), (0.25, 0.95), (0.5, 1.0), (0.999999, 1.1)):
        assert model.draw_ns(decode, uniform) == pytest.approx(expected * ratio, rel=1e-5)
    assert model.draw_ns(prompt, 0.5) == pytest.approx(model.predict_ns(prompt), rel=1e-6)
    assert model.draw_ns(prompt, 0.0) == pytest.approx(model.predict_ns(prompt) * 0.95, rel=1e-6)
    assert ProfileModel(TRUTH).draw_ns(decode, 0.99) == expected


def test_the_margin_covers_nine_steps_with_prompts_of_ten():
    assert ProfileModel(with_residuals()).margin == pytest.approx(0.04)
    assert ProfileModel(TRUTH).margin == 0
    assert ProfileModel(profile(residuals=Residuals(prefill=[0.5, 0.6]))).margin == 0


def test_it_learns_nothing():
    model, shape = ProfileModel(TRUTH), StepShape(8, 8, 800, 100, 5000)
    before = model.predict_ns(shape)
    for _ in range(50):
        model.learn([(shape, 10 * before)])
    assert model.predict_ns(shape) == before


def test_a_linear_machine_is_found_again_by_its_features():
    todo = shapes(100, np.random.default_rng(0))
    seconds = [
        0.005
        + 1e-5 * s.decode_tokens
        + 4e-8 * s.decode_context
        + 8e-5 * s.prefill_tokens
        + 6e-9 * s.prefill_attention
        for s in todo
    ]
    assert fit_features(todo, seconds) == pytest.approx([0.005, 1e-3, 4e-3, 0.08, 6e-3], rel=1e-4)


@pytest.mark.parametrize("name", shipped_profiles())
def test_the_model_that_starts_from_a_profile_is_close_to_it(name: str):
    """Five straight terms against a staircase: a few percent in the mean, a fifth at an edge."""
    source = read_profile(name)
    machine, online = ProfileModel(source), online_from(source)
    assert online.ready
    assert online.margin == machine.margin
    ordinary = shapes(600, np.random.default_rng(1), prompts=0.5)
    real = np.array([machine.predict_ns(s) + source.host_s * NS_PER_S for s in ordinary])
    found = np.array([online.predict_ns(s) for s in ordinary])
    assert np.abs(found / real - 1).mean() < 0.09
    assert np.abs(found / real - 1).max() < 0.27
    assert found.sum() / real.sum() == pytest.approx(1, abs=0.05)


def test_a_margin_is_never_nothing():
    assert online_from(TRUTH).margin == 0.02
