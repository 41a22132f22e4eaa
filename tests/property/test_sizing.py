"""Chunk sizes and their prices against a search of every size."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sarathi_plugin.core import NS_PER_MS, Chunk, StepShape
from sarathi_plugin.policies.sizing import (
    ENDS,
    Sizes,
    added_misses,
    attention_of,
    candidates,
    fastest,
    harmless_ns,
    least_harm,
    predicted,
    sizes_within,
)
from sarathi_plugin.steptime.online import OnlineModel
from tests.unit.policies.views import NOW, LinearModel, make_row, make_view

if TYPE_CHECKING:
    from sarathi_plugin.core import RequestRow

ROWS = st.lists(
    st.builds(
        lambda tokens, done: make_row(tokens=tokens, computed=min(done, tokens - 1)),
        st.integers(1, 3000),
        st.integers(0, 2999),
    ),
    min_size=1,
    max_size=6,
)


@given(decodes=st.integers(0, 300), room=st.integers(1, 5000), rows=ROWS)
def test_candidates_are_tile_edges_prompt_ends_and_all_there_is(
    decodes: int, room: int, rows: list[RequestRow]
):
    tiles = (64, 128, 512, 1024)
    found = candidates(decodes, room, rows, tiles)
    ends = list(accumulate(row.remaining_tokens for row in rows))
    most = min(room, ends[-1])
    wanted = {most, *(t - decodes for t in tiles), *ends[:ENDS]}
    assert found == sorted(n for n in wanted if 0 < n <= most)
    assert found[-1] == most


@given(rows=ROWS, tokens=st.integers(1, 20_000))
def test_prompt_tokens_are_taken_in_the_order_of_the_prompts(rows: list[RequestRow], tokens: int):
    tokens = min(tokens, sum(row.remaining_tokens for row in rows))
    found = attention_of(rows, [*range(1, tokens, 97), tokens])
    pairs, left = 0.0, tokens
    for row in rows:
        part = min(left, row.remaining_tokens)
        pairs += sum(row.computed_tokens + i + 0.5 for i in range(part))
        left -= part
    assert np.isclose(found[-1], pairs)
    assert found == [attention_of(rows, [n])[0] for n in [*range(1, tokens, 97), tokens]]


@given(
    rows=ROWS,
    limit_ms=st.floats(0, 400),
    margin=st.floats(0, 0.5),
    pair_ms=st.sampled_from([0.0, 1e-4]),
)
def test_sizes_within_a_limit_are_those_whose_step_is_and_the_smallest(
    rows: list[RequestRow], limit_ms: float, margin: float, pair_ms: float
):
    model, shape = LinearModel(margin=margin, pair_ms=pair_ms), StepShape(4, 4, 2000)
    tokens = candidates(4, 4000, rows)
    sizes = sizes_within(model, shape, rows, tokens, limit_ms * NS_PER_MS)
    times = [took * (1 + margin) for took in predicted(model, shape, tokens, attention_of(rows, tokens))]
    fitting = [n for n, took in zip(tokens, times, strict=True) if took <= limit_ms * NS_PER_MS]
    assert sizes.tokens == (fitting or tokens[:1])
    assert sizes.times_ns == times[: len(sizes.tokens)]


@given(
    due_ms=st.lists(st.integers(-500, 500), min_size=1, max_size=8),
    times_ms=st.lists(st.integers(21, 900), min_size=1, max_size=6),
    tbt_ms=st.sampled_from([7, 50, 100]),
    ahead_ms=st.integers(0, 100),
)
def test_added_misses_are_counted_as_the_index_counts_them(
    due_ms: list[int], times_ms: list[int], tbt_ms: int, ahead_ms: int
):
    view = make_view(due_ms, tbt_ms=tbt_ms, free_at_ms=ahead_ms, model=LinearModel(step_ms=1))
    times = sorted(times_ms)
    alone = 20

    def missed(took: int) -> int:
        late = [took + ahead_ms - due for due in due_ms]
        return sum(ms // tbt_ms + 1 for ms in late if ms > 0)

    found = added_misses(view, alone * NS_PER_MS, [t * NS_PER_MS for t in times])
    assert found == [missed(t) - missed(alone) for t in times]
    harmless = harmless_ns(view, alone * NS_PER_MS)
    assert [t * NS_PER_MS > harmless for t in times] == [more > 0 for more in found]


SIZED = st.lists(
    st.tuples(st.integers(1, 500), st.integers(1, 500), st.integers(0, 3)), min_size=1, max_size=12
)


def sized(data: list[tuple[int, int, int]]) -> tuple[Sizes, list[int]]:
    tokens = list(accumulate(step for step, _, _ in data))
    times = list(accumulate(float(more) for _, more, _ in data))
    return Sizes(tokens, times), [late for _, _, late in data]


@given(
    shape=st.builds(StepShape, st.integers(0, 300), st.integers(0, 300), st.integers(0, 90_000)), rows=ROWS
)
def test_many_sizes_are_predicted_as_one_by_one(shape: StepShape, rows: list[RequestRow]):
    model = OnlineModel((0.01, 0.02, 0.03, 0.04, 0.05), trained=True)
    for n in range(40):  # stairs of their own
        model.learn([(StepShape(4, 4, 2000, 32 * n + 8, 900.0 * n), (40 + 7 * (n % 3)) * NS_PER_MS)])
    tokens = candidates(shape.decode_tokens, 12_000, rows)
    one_by_one = [
        model.predict_ns(StepShape(*shape[:3], n, pairs))
        for n, pairs in zip(tokens, attention_of(rows, tokens), strict=True)
    ]
    assert predicted(model, shape, tokens, attention_of(rows, tokens)) == one_by_one


@given(data=SIZED, longest=st.floats(0, 3000))
def test_the_fastest_is_the_best_rate_among_those_that_make_nobody_late(
    data: list[tuple[int, int, int]], longest: float
):
    sizes, _ = sized(data)
    best = fastest(sizes, longest)
    harmless = [i for i, took in enumerate(sizes.times_ns) if took <= longest]
    if not harmless:
        assert best is None
        return
    per_token = [took / count for took, count in zip(sizes.times_ns, sizes.tokens, strict=True)]
    assert best in harmless
    assert per_token[best] == min(per_token[i] for i in harmless)
    assert all(per_token[i] > per_token[best] for i in harmless if i > best)


@given(data=SIZED)
def test_the_least_harm_is_per_token_and_the_smallest_of_equals(data: list[tuple[int, int, int]]):
    sizes, added = sized(data)
    prices = [late / count for late, count in zip(added, sizes.tokens, strict=True)]
    assert least_harm(sizes, added) == prices.index(min(prices))


def test_the_machine_of_these_tests_costs_what_they_assume():
    shape = StepShape(10, 10, 0)
    assert LinearModel().predict_ns(shape) == 20 * NS_PER_MS
    assert LinearModel().predict_ns(shape.with_chunk(Chunk(100, 0))) == 30 * NS_PER_MS
    assert make_row().prefill_deadline_ns > NOW - 10**12
