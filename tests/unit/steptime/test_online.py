"""The model that learns while it serves: when it is ready, and what it leaves out."""

from __future__ import annotations

import pytest

from sarathi_plugin.core import StepShape
from sarathi_plugin.steptime.online import MARGIN_RANGE, READY_PREFILLS, OnlineModel

DECODE = StepShape(4, 4, 1000)
MIXED = StepShape(4, 4, 1000, 128, 8192.0)


def test_before_anything_was_seen_steps_are_thought_slow():
    model = OnlineModel()
    assert not model.ready
    assert model.margin == MARGIN_RANGE[1]
    assert model.predict_ns(MIXED) > 80_000_000
    assert model.predict_ns(StepShape()) == 20_000_000


def test_it_is_ready_after_enough_steps_with_prompt_tokens():
    model = OnlineModel()
    for _ in range(50):
        model.learn([(DECODE, 10_000_000)])
    assert not model.ready
    for seen in range(READY_PREFILLS):
        assert not model.ready, seen
        model.learn([(MIXED, 20_000_000)])
    assert model.ready


def test_the_first_steps_correct_the_prior_at_once():
    model = OnlineModel()
    for _ in range(READY_PREFILLS):
        model.learn([(MIXED, 5_000_000)])
    assert model.predict_ns(MIXED) == pytest.approx(5_000_000, rel=0.25)


@pytest.mark.parametrize(("shape", "took"), [(MIXED, 0), (MIXED, -7), (StepShape(), 50_000_000)])
def test_a_step_without_duration_or_content_teaches_nothing(shape: StepShape, took: int):
    model = OnlineModel()
    for _ in range(20):
        model.learn([(shape, took)])
    assert model.coefficients == OnlineModel().coefficients
    assert not model.ready


def test_coefficients_are_in_seconds_per_unit():
    model = OnlineModel((0.01, 0.02, 0.03, 0.04, 0.05))
    assert model.coefficients == pytest.approx(
        {
            "step": 0.01,
            "decode_token": 2e-4,
            "decode_context_token": 3e-7,
            "prefill_token": 4e-5,
            "prefill_pair": 5e-8,
        }
    )
    assert model.predict_ns(StepShape(1, 100, 100_000, 1000, 1e6)) == pytest.approx(150_000_000)


def test_a_trained_model_is_ready_and_keeps_its_margin():
    model = OnlineModel(trained=True, margin=0.07)
    assert model.ready
    assert model.margin == 0.07


def test_the_margin_covers_nine_steps_of_ten():
    model = OnlineModel((0.01, 0.0, 0.0, 0.0, 0.0), weight=1e9, trained=True)  # will not move
    for i in range(400):
        model.learn([(DECODE, 13_000_000 if i % 8 == 0 else 10_500_000)])  # one in eight is 30 % longer
    assert model.predict_ns(DECODE) * (1 + model.margin) == pytest.approx(13_000_000, rel=0.02)
    for _ in range(400):
        model.learn([(DECODE, 10_500_000)])
    assert model.margin < 0.06


def test_a_step_far_beyond_its_prediction_is_learned_as_four_times_it():
    models = [OnlineModel(trained=True) for _ in range(3)]
    expected = models[0].predict_ns(MIXED)
    for model, took in zip(models, (100 * expected, 4 * expected, 3 * expected), strict=True):
        model.learn([(MIXED, took), *[(DECODE, model.predict_ns(DECODE))] * 7])
    assert models[0].predict_ns(MIXED) == pytest.approx(models[1].predict_ns(MIXED), rel=1e-6)
    assert models[2].predict_ns(MIXED) < 0.8 * models[1].predict_ns(MIXED)


def test_before_it_is_ready_it_believes_everything():
    model = OnlineModel()
    model.learn([(MIXED, 100 * model.predict_ns(MIXED))])
    assert model.predict_ns(MIXED) > 10 * OnlineModel().predict_ns(MIXED)


def test_it_tells_how_large_the_steps_were_that_it_has_seen():
    model = OnlineModel()
    assert model.seen_tokens == 0
    for tokens in (10, 300, 200):
        model.learn([(DECODE, 10_000_000), (StepShape(4, 4, 1000, tokens, 0.0), 20_000_000)])
    assert model.seen_tokens == 300
    assert OnlineModel(trained=True).seen_tokens is None


def settled() -> OnlineModel:
    """A model that has seen hundreds of steps of two kinds, and was fitted just now."""
    model = OnlineModel()
    for _ in range(200):
        model.learn([(DECODE, 10_000_000), (MIXED, 20_000_000)])
    return model


def test_a_step_twice_as_long_as_predicted_is_learned_at_once():
    usual, surprised = settled(), settled()
    usual.learn([(MIXED, 38_000_000)])
    assert usual.coefficients == settled().coefficients
    surprised.learn([(MIXED, 44_000_000)])
    assert surprised.coefficients != settled().coefficients


def test_a_step_larger_than_any_before_is_learned_at_once():
    model = settled()
    larger = StepShape(4, 4, 1000, 256, 32768.0)
    model.learn([(larger, model.predict_ns(larger) * 3 // 2)])
    assert model.coefficients != settled().coefficients
    assert model.seen_tokens == 256


def test_a_slow_first_step_does_not_make_large_steps_seem_as_short_as_small_ones():
    model = OnlineModel()
    model.learn([(StepShape(0, 0, 0, 10, 50.0), 2_000_000_000)])  # kernels are chosen, memory is touched
    for _ in range(READY_PREFILLS):
        model.learn([(MIXED, 33_000_000)])
    assert model.ready
    assert (
        model.predict_ns(StepShape(4, 4, 1000, 8192, 8192 * 4096.0)) < 60_000_000
    )  # so nobody may ask it that
    assert model.seen_tokens == 128
