"""Chunk sizes against a search of every size."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from sarathi_plugin.core import Chunk, StepShape
from sarathi_plugin.policies.sizing import efficient_chunk, largest_chunk, needed_time_ns
from sarathi_plugin.steptime.online import OnlineModel

SHAPE = StepShape(4, 4, 2000)


@dataclass
class Staircase:
    """A machine whose time grows in steps, as with the tiles of a matrix product. Only ever grows."""

    base_ns: int
    token_ns: int
    tile: int
    tile_ns: int
    ready: bool = True
    margin: float = 0.0

    def predict_ns(self, shape: StepShape) -> int:
        tiles = -(-shape.prefill_tokens // self.tile)
        return self.base_ns + self.token_ns * shape.prefill_tokens + self.tile_ns * tiles

    def update(self, shape: StepShape, duration_ns: int) -> None:
        raise AssertionError


STAIRS = st.builds(
    Staircase,
    base_ns=st.integers(0, 10_000),
    token_ns=st.integers(0, 50),
    tile=st.integers(1, 64),
    tile_ns=st.integers(0, 2000),
)
CURVED = st.builds(
    lambda coefficients: OnlineModel(coefficients, trained=True),
    st.tuples(*[st.floats(0, 1e-3) for _ in range(5)]),
)
MODELS = STAIRS | CURVED
LIMITS = st.integers(-3, 120)
CONTEXTS = st.integers(0, 100_000)


@settings(deadline=None, max_examples=200)
@given(model=MODELS, context=CONTEXTS, limit=LIMITS, time_ns=st.integers(0, 40_000))
def test_largest_chunk_is_the_largest_that_fits_the_time(
    model: Staircase | OnlineModel, context: int, limit: int, time_ns: int
):
    if isinstance(model, OnlineModel):
        time_ns *= 100
    fitting = [
        n for n in range(1, limit + 1) if model.predict_ns(SHAPE.with_chunk(Chunk(n, context))) <= time_ns
    ]
    assert largest_chunk(model, SHAPE, context, limit, time_ns) == max(fitting, default=0)


@settings(deadline=None, max_examples=200)
@given(model=MODELS, context=CONTEXTS, limit=st.integers(1, 120), share=st.floats(0, 0.95))
def test_efficient_chunk_is_the_smallest_whose_work_is_its_share_of_the_step(
    model: Staircase | OnlineModel, context: int, limit: int, share: float
):
    base = model.predict_ns(SHAPE)
    found = efficient_chunk(model, SHAPE, context, limit, share)
    assert 1 <= found <= limit
    times = [model.predict_ns(SHAPE.with_chunk(Chunk(n, context))) for n in range(limit + 1)]
    slop = 1e-9 * base + 1  # the border is a float rounded to whole nanoseconds
    if found < limit:
        assert times[found] - base >= share * times[found] - slop
    if found > 1:
        assert times[found - 1] - base <= share * times[found - 1] + slop


@given(base_ns=st.integers(0, 10**9), share=st.floats(0, 0.99))
def test_needed_time_is_the_base_divided_by_what_is_left_for_it(base_ns: int, share: float):
    model = Staircase(base_ns, 1, 1, 0)
    needed = needed_time_ns(model, SHAPE, share)
    assert needed >= base_ns
    assert abs(needed - base_ns / (1 - share)) <= 1 + 1e-9 * needed


@settings(deadline=None, max_examples=200)
@given(model=MODELS, context=CONTEXTS, limit=st.integers(2, 8192), time_ns=st.integers(0, 10**7))
def test_the_search_asks_the_model_a_bounded_number_of_times(
    model: Staircase | OnlineModel, context: int, limit: int, time_ns: int
):
    asked = 0
    predict = model.predict_ns

    def count(shape: StepShape) -> int:
        nonlocal asked
        asked += 1
        return predict(shape)

    class Counting:
        ready, margin, update, predict_ns = True, 0.0, None, staticmethod(count)

    largest_chunk(Counting(), SHAPE, context, limit, time_ns)
    assert asked <= 2 + 2 * limit.bit_length()
