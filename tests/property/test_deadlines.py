"""Deadlines: the batch form, the live form and the columns agree on whatever happens."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from sarathi_plugin.deadlines import (
    DeadlineState,
    count_deadlines,
    fluid_token_rate,
    inter_token_times,
    smallest_fluid_tbt_ns,
    token_fraction,
)

# Small numbers, so that tokens often come exactly on a deadline; zeros are tokens of the same step.
TIMES = st.lists(st.integers(0, 60) | st.sampled_from([0, 10, 20, 40, 5000]), max_size=40)
FIRST = st.integers(0, 100)
TBT = st.integers(1, 40)


@settings(deadline=None, max_examples=500)
@given(times=TIMES, first=FIRST, tbt=TBT, arrival=st.integers(0, 10**15))
def test_live_form_is_the_batch_form(times: list[int], first: int, tbt: int, arrival: int):
    state = DeadlineState.from_arrival(arrival, first, tbt)
    for now in list(accumulate(times, initial=arrival))[1:]:
        state.emit(now)
    assert (state.met, state.missed) == count_deadlines(times, first, tbt)


@settings(deadline=None, max_examples=500)
@given(times=TIMES.filter(bool), first=FIRST, tbt=TBT)
def test_live_form_is_the_batch_form_when_the_first_token_is_not_judged(
    times: list[int], first: int, tbt: int
):
    tokens = list(accumulate(times))
    state = DeadlineState.after_first_token(tokens[0], tbt)
    for now in tokens[1:]:
        state.emit(now)
    assert (state.met, state.missed) == count_deadlines(times, first, tbt, judge_first=False)


@settings(deadline=None, max_examples=500)
@given(steps=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 5)), max_size=25), first=FIRST, tbt=TBT)
def test_a_bundle_at_once_is_its_tokens_one_by_one(steps: list[tuple[int, int]], first: int, tbt: int):
    bundled = DeadlineState.from_arrival(0, first, tbt)
    single = DeadlineState.from_arrival(0, first, tbt)
    now = 0
    for gap, tokens in steps:
        now += gap
        missed = bundled.emit(now, tokens)
        assert missed == sum(single.emit(now) for _ in range(tokens))
        assert bundled == single


@given(times=TIMES, first=FIRST, tbt=TBT, judge_first=st.booleans())
def test_fluidity_is_a_share_and_never_above_the_share_of_tokens_on_time(
    times: list[int], first: int, tbt: int, judge_first: bool
):
    count = count_deadlines(times, first, tbt, judge_first=judge_first)
    tokens = token_fraction(times, first, tbt, judge_first=judge_first)
    assert 0 <= count.fluidity_index <= tokens <= 1
    assert count.met <= len(times)
    assert count.total >= len(times) - (not judge_first and bool(times))


@settings(deadline=None, max_examples=500)
@given(times=TIMES, tbt=TBT, more=st.integers(1, 40))
def test_more_time_per_token_never_makes_a_request_less_fluid(times: list[int], tbt: int, more: int):
    tight = count_deadlines(times, 0, tbt, judge_first=False)
    loose = count_deadlines(times, 0, tbt + more, judge_first=False)
    assert loose.missed <= tight.missed
    assert loose.fluidity_index >= tight.fluidity_index


@given(times=TIMES, first=FIRST, tbt=TBT, factor=st.integers(2, 10**6))
def test_the_unit_of_time_does_not_matter(times: list[int], first: int, tbt: int, factor: int):
    scaled = count_deadlines([t * factor for t in times], first * factor, tbt * factor)
    assert scaled == count_deadlines(times, first, tbt)


@given(arrival=st.integers(0, 10**15), times=TIMES)
def test_inter_token_times_undo_the_sums(arrival: int, times: list[int]):
    tokens = list(accumulate(times, initial=arrival))[1:]
    assert inter_token_times(arrival, tokens) == times


@given(times=TIMES.filter(bool), tbt=TBT, late=st.integers(-50, 500))
def test_giving_up_adds_only_misses_and_those_of_a_token_then(times: list[int], tbt: int, late: int):
    state = DeadlineState.from_arrival(0, 0, tbt)
    for now in accumulate(times):
        state.emit(now)
    met, missed = state.met, state.missed
    now = state.next_deadline_ns + late
    other = DeadlineState(state.next_deadline_ns, tbt)
    assert state.give_up(now) == other.emit(now)
    assert (state.met, state.missed) == (met, missed + other.missed)


@settings(deadline=None)
@given(
    gaps=st.lists(st.integers(0, 100), min_size=1, max_size=30), threshold=st.sampled_from([0.5, 0.9, 1.0])
)
def test_smallest_fluid_tbt_is_the_first_that_suffices(gaps: list[int], threshold: float):
    def fluid(tbt: int) -> bool:
        return count_deadlines([0, *gaps], 0, tbt, judge_first=False).fluidity_index >= threshold

    found = smallest_fluid_tbt_ns(gaps, threshold=threshold, resolution_ns=1)
    assert found == next(tbt for tbt in range(1, 102) if fluid(tbt))


@settings(deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(1, 100), max_size=8), min_size=1, max_size=12),
    share=st.sampled_from([0.5, 0.9, 0.99, 1.0]),
)
def test_fluid_token_rate_is_kept_by_the_share_it_promises(requests: list[list[int]], share: float):
    rate = fluid_token_rate([[gap * 10**6 for gap in gaps] for gaps in requests], share=share)
    judged = [gaps for gaps in requests if gaps]
    if not judged:
        assert rate is None
        return
    tbt = round(10**9 / rate)
    kept = sum(
        count_deadlines([0, *(gap * 10**6 for gap in gaps)], 0, tbt, judge_first=False).fluidity_index >= 0.9
        for gaps in judged
    )
    assert kept >= share * len(judged) - 1e-9
