"""The step-time model, whatever it is fed: physical, quick to learn, hard to fool."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarathi_plugin.core import Chunk, StepShape
from sarathi_plugin.steptime.online import MARGIN_RANGE, OnlineModel

MACHINE = {
    "step": 0.012,
    "decode_token": 2e-4,
    "decode_context_token": 3e-8,
    "prefill_token": 9e-5,
    "prefill_pair": 1.2e-8,
}


def duration_ns(shape: StepShape, factor: float = 1.0) -> int:
    """What MACHINE takes for a step, in nanoseconds."""
    c = MACHINE
    seconds = (
        c["step"]
        + c["decode_token"] * shape.decode_tokens
        + c["decode_context_token"] * shape.decode_context
        + c["prefill_token"] * shape.prefill_tokens
        + c["prefill_pair"] * shape.prefill_attention
    )
    return round(seconds * factor * 1e9)


def random_shape(rng: random.Random) -> StepShape:
    """A step of a serving engine: mostly decodes, every third with a chunk."""
    rows = rng.randint(1, 64)
    shape = StepShape(rows, rows, rows * rng.randint(100, 4000))
    if rng.random() < 0.35:
        shape = shape.with_chunk(Chunk(rng.randint(16, 2048), rng.randint(0, 8192)))
    return shape


def trained(seed: int, steps: int = 400, noise: float = 0.0) -> tuple[OnlineModel, random.Random]:
    rng = random.Random(seed)
    model = OnlineModel()
    for _ in range(steps):
        shape = random_shape(rng)
        model.learn([(shape, round(duration_ns(shape) * rng.uniform(1 - noise, 1 + noise)))])
    return model, rng


def errors(model: OnlineModel, rng: random.Random, factor: float = 1.0) -> list[float]:
    shapes = [random_shape(rng) for _ in range(200)]
    return [abs(model.predict_ns(s) / duration_ns(s, factor) - 1) for s in shapes]


SHAPES = st.builds(
    lambda rows, extra, context, chunk: StepShape(rows, rows * extra, rows * context).with_chunk(
        Chunk(*chunk)
    ),
    st.integers(0, 256),
    st.integers(1, 5),
    st.integers(0, 100_000),
    st.tuples(st.integers(0, 8192), st.integers(0, 100_000)),
)
STEPS = st.lists(st.tuples(SHAPES, st.integers(-5, 10**11)), max_size=60)


@settings(deadline=None, max_examples=100)
@given(steps=STEPS, probe=SHAPES, chunks=st.lists(st.integers(0, 20_000), min_size=2, max_size=6))
def test_the_line_never_falls_and_no_step_takes_less_than_nothing(
    steps: list[tuple[StepShape, int]], probe: StepShape, chunks: list[int]
):
    model = OnlineModel()
    for shape, took in steps:
        model.learn([(shape, took)])
        assert all(c >= 0 for c in model.coefficients.values())
    times = [model.predict_ns(probe.with_chunk(Chunk(n, 500))) for n in sorted(chunks)]
    assert all(isinstance(t, int) and t >= 0 for t in times)
    low, high = MARGIN_RANGE
    assert low <= model.margin <= high


@pytest.mark.parametrize("seed", range(5))
def test_a_linear_machine_is_learned_within_5_percent(seed: int):
    model, rng = trained(seed)
    assert model.ready
    assert max(errors(model, rng)) < 0.05


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_a_tenth_is_averaged_out_and_stands_in_the_margin(seed: int):
    model, rng = trained(seed, noise=0.1)
    found = errors(model, rng)
    assert max(found) < 0.10
    assert sum(found) / len(found) < 0.03
    assert 0.04 < model.margin < 0.13


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_machine_that_changes_its_speed_is_followed(seed: int, factor: float):
    model, rng = trained(seed)
    for _ in range(500):
        shape = random_shape(rng)
        model.learn([(shape, duration_ns(shape, factor))])
    found = errors(model, rng, factor)
    assert sum(found) / len(found) < 0.12
    assert max(found) < 0.25


@pytest.mark.parametrize("seed", range(5))
def test_while_it_catches_up_with_a_slowdown_the_margin_covers_for_it(seed: int):
    """After 100 steps of twice the length the old ones still count 0.6, and the new ones half their share."""
    model, rng = trained(seed)
    for _ in range(100):
        shape = random_shape(rng)
        model.learn([(shape, duration_ns(shape, 2.0))])
    shapes = [random_shape(rng) for _ in range(200)]
    covered = [model.predict_ns(s) * (1 + model.margin) / duration_ns(s, 2.0) for s in shapes]
    assert sum(covered) / len(covered) > 0.85
    assert model.margin == MARGIN_RANGE[1]
    assert sum(errors(model, rng, 2.0)) / 200 < 0.40


@pytest.mark.parametrize("seed", range(20))
def test_one_step_of_a_hundred_times_its_length_moves_no_prediction_by_30_percent(seed: int):
    model, rng = trained(seed)
    shapes = [random_shape(rng) for _ in range(100)]
    before = [model.predict_ns(shape) for shape in shapes]
    odd = random_shape(rng)
    model.learn([(odd, 100 * duration_ns(odd))])
    for _ in range(32):  # whenever it is that the fit is made anew
        shape = random_shape(rng)
        model.learn([(shape, duration_ns(shape))])
        after = [model.predict_ns(shape) for shape in shapes]
        assert max(abs(b / a - 1) for a, b in zip(before, after, strict=True)) < 0.30


TILE = 256


def tiled_ns(shape: StepShape) -> int:
    """A machine whose steps jump by a third at every tile edge."""
    tokens = shape.decode_tokens + shape.prefill_tokens
    return round(1e6 * (8 + 10 * -(-tokens // TILE)) + 20 * shape.decode_context)


def test_tiles_are_learned_where_the_engine_has_been():
    model, rng = OnlineModel(), random.Random(0)
    shape = StepShape(16, 16, 16_000)
    for _ in range(600):
        chunk = rng.choice([112, 240, 248, 368, 496, 504])
        step = shape.with_chunk(Chunk(chunk, 1000))
        model.learn([(step, tiled_ns(step))])
    for chunk in (240, 248, 496, 504):
        step = shape.with_chunk(Chunk(chunk, 1000))
        assert model.predict_ns(step) == pytest.approx(tiled_ns(step), rel=0.03)
    assert model.margin < 0.05


def test_steps_told_together_teach_as_much_as_one_by_one():
    rng = random.Random(1)
    shapes = [random_shape(rng) for _ in range(400)]
    alone, together = OnlineModel(), OnlineModel()
    for shape in shapes:
        alone.learn([(shape, duration_ns(shape))])
    for at in range(0, len(shapes), 20):
        together.learn([(shape, duration_ns(shape)) for shape in shapes[at : at + 20]])
    for shape in shapes[:50]:
        assert together.predict_ns(shape) == pytest.approx(alone.predict_ns(shape), rel=0.02)
