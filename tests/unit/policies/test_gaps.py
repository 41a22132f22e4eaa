"""Gap mode: who goes first, and how large a step is."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.gapcount import GapCount
from sarathi_plugin.policies.gaps import bounded_ranks, least_wait, longest_wait
from sarathi_plugin.policies.sarathi import Sarathi
from sarathi_plugin.policies.sizing import Sizes, attention_of, candidates, sizes_within
from sarathi_plugin.waits import Waits
from tests.unit.policies.views import CLASSES, NOW, LinearModel, make_row, make_view, prompts_of

DECODES = [100.0] * 10
"""Ten decodes, which take 20 ms by themselves, each within 100 ms."""

OLD = make_row("old", tokens=5000, arrived_ms=-300)
MIDDLE = make_row("middle", tokens=3000, arrived_ms=-200)
SHORT = make_row("short", tokens=100, arrived_ms=-100)


def order_of(rows, usual_ms: float, per_token_ms: float = 0.1) -> list[str]:
    prompts = prompts_of(rows, CLASSES)
    ranks = bounded_ranks(
        prompts, prompts.left_tokens * per_token_ms * NS_PER_MS, NOW, round(usual_ms * NS_PER_MS), 10**9, 64
    )
    return [rows[i].request_id for i in np.argsort(ranks)]


# -- who goes first ----------------------------------------------------------------------------------------------


def test_before_any_first_token_was_seen_prompts_go_as_they_came():
    assert order_of([SHORT, OLD, MIDDLE], usual_ms=0) == ["old", "middle", "short"]


def test_prompts_that_can_bear_it_are_overtaken_by_shorter_ones():
    assert order_of([OLD, MIDDLE, SHORT], usual_ms=5000) == ["short", "middle", "old"]


def test_a_prompt_is_overtaken_no_further_than_it_can_bear():
    """In turn the old one would be done 800 ms after its arrival, the middle one 1000; the short one takes 10."""
    assert order_of([OLD, MIDDLE, SHORT], usual_ms=1009) == ["old", "middle", "short"]
    assert order_of([OLD, MIDDLE, SHORT], usual_ms=1010) == ["short", "old", "middle"]
    assert order_of([OLD, MIDDLE, SHORT], usual_ms=1109) == ["short", "old", "middle"]
    assert order_of([OLD, MIDDLE, SHORT], usual_ms=1110) == ["short", "middle", "old"]


def test_of_equals_the_older_goes_first():
    rows = [make_row(str(i), arrived_ms=-i) for i in range(5)]
    assert order_of(rows, usual_ms=1e6) == ["4", "3", "2", "1", "0"]


def test_behind_enough_tokens_prompts_stay_as_they_came():
    prompts = prompts_of([OLD, MIDDLE, SHORT], CLASSES)
    work = prompts.left_tokens * 1e5
    assert bounded_ranks(prompts, work, NOW, NS_PER_S * 60, 100, 64).tolist() == [1, 2, 0]
    assert bounded_ranks(prompts, work, NOW, NS_PER_S * 60, 10**9, 1).tolist() == [1, 2, 0]


jobs = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), min_size=1, max_size=12)


@given(jobs, st.integers(0, 120), st.integers(1, 7))
def test_nobody_waits_longer_than_usual_or_than_first_come_first_served(drawn, usual, slice_):
    """One machine, work known exactly, the order worked out anew after every slice of work."""
    arrivals = sorted(at for at, _ in drawn)
    works = [work for _, work in drawn]
    served, free = [], 0
    for at, work in zip(arrivals, works, strict=True):
        free = max(free, at) + work
        served.append(free - at)
    left, now, waits = dict(enumerate(works)), 0, {}
    while left:
        here = [i for i in left if arrivals[i] <= now]
        if not here:
            now = min(arrivals[i] for i in left)
            continue
        rows = [make_row(str(i), tokens=left[i], arrived_ms=(arrivals[i] - now)) for i in here]
        first = int(order_of(rows, usual, 1.0)[0])
        coming = min((arrivals[i] - now for i in left if arrivals[i] > now), default=slice_)
        done = min(slice_, left[first], coming)
        now += done
        left[first] -= done
        if not left[first]:
            del left[first]
            waits[first] = now - arrivals[first]
    assert all(waits[i] <= max(served[i], usual) for i in waits)


def alone(view) -> int:
    return view.model.predict_ns(view.decode_shape)


# -- how large a step is -----------------------------------------------------------------------------------------


def size_of(rows, limit_ms: float = 1e9, *, model=None, others: int = 0, tiles=(1000, 2000, 4000)) -> int:
    """The chunk beside ten decodes."""
    view = make_view(DECODES, (), rows, model=model)
    tokens = candidates(0, 8192, rows, tiles)
    sizes = sizes_within(view.model, view.decode_shape, rows, tokens, limit_ms * NS_PER_MS)
    return sizes.tokens[least_wait(view, rows, sizes, alone(view), others)]


def test_one_prompt_is_computed_at_once_if_it_can_be():
    assert size_of([make_row(tokens=4200)]) == 4200
    assert size_of([make_row(tokens=4200)], limit_ms=300) == 2000


def test_a_chunk_that_looks_back_on_little_is_not_cheaper_for_it():
    """Attention has to be paid whoever carries it."""
    steep = LinearModel(pair_ms=1e-3)
    rows = [make_row(tokens=4000)]
    assert attention_of(rows, [4000]) == [8e6]
    assert size_of(rows, model=steep) == 4000


def test_a_step_ends_with_a_prompt_where_that_brings_tokens_sooner():
    first, second = make_row("first", tokens=1500), make_row("second", tokens=1500)
    assert size_of([first, second]) == 1500  # 170 ms and 340, not 320 twice
    tiny = make_row("tiny", tokens=150)
    assert size_of([tiny, make_row("next", tokens=150)], tiles=()) == 300  # 50 ms twice, not 35 and 70


def test_those_who_wait_behind_count_too():
    """What the first gains by a step of its own, everybody behind it pays for with another pass over the decodes."""
    rows = [make_row("first", tokens=1500), make_row("second", tokens=1500)]
    assert size_of(rows, others=4) == 1500
    assert size_of(rows, others=8) == 3000


def test_the_larger_of_equals():
    free = LinearModel(step_ms=0, decode_ms=0)
    view = make_view(DECODES, (), [make_row(tokens=4000)], model=free)
    sizes = Sizes([1000, 2000], [100e6, 200e6])
    assert least_wait(view, [make_row(tokens=4000)], sizes, alone(view), 0) == 1


# -- in the policy -----------------------------------------------------------------------------------------------


def test_gap_mode_goes_by_what_prompts_can_bear_and_deadline_mode_does_not_look():
    view = make_view(DECODES, (), [SHORT, OLD, MIDDLE])
    named = lambda policy: [row.request_id for row in policy.plan(view).waiting]  # noqa: E731
    before = Sarathi().plan(view)
    assert named(Sarathi(slo="gap")) == ["old", "middle", "short"]
    view.waits.note(60 * NS_PER_S)
    assert named(Sarathi(slo="gap")) == ["short", "middle", "old"]
    assert named(Sarathi(slo="gap", order="arrival")) == ["old", "middle", "short"]
    assert Sarathi().plan(view) == before


def test_gap_mode_sizes_a_step_by_the_gaps_that_may_still_be_late():
    """Ten late gaps more of 1,250 are 0.8 percent, of 1,249 beyond it."""
    view = make_view(DECODES, (), [make_row(tokens=9000)])
    allowed_ms = lambda policy: policy.plan(view).available_ns / NS_PER_MS  # noqa: E731
    view.gaps = GapCount(CLASSES)
    view.gaps.seen[0] = 1249
    assert allowed_ms(Sarathi(slo="gap")) == 100
    view.gaps.seen[0] = 1250
    assert allowed_ms(Sarathi(slo="gap")) == 400
    assert allowed_ms(Sarathi(slo="gap", stall_cap=2)) == 200
    assert allowed_ms(Sarathi(slo="gap", late_share=0)) == 100
    assert Sarathi().plan(view).available_ns == 400 * NS_PER_MS


def test_a_target_out_of_reach_makes_no_prompt_crawl():
    """The decodes alone take 502 ms of 100: once a tenth of the gaps were late, prompts get steps like by deadlines."""
    policy = Sarathi(slo="gap")
    view = make_view([-200.0, -950.0], (), [make_row(tokens=9000)], model=LinearModel(step_ms=500))
    view.gaps = GapCount(CLASSES)
    assert (
        policy.plan(view).budget == 16
    )  # whatever a step takes now, the target may yet be kept by a smaller batch
    view.gaps.seen[0], view.gaps.late[0] = 1000, 500
    plan = policy.plan(view)
    assert plan.available_ns == 4 * 501 * NS_PER_MS
    assert plan.budget == 8192


def test_the_longer_a_wait_is_among_others_the_more_gaps_may_be_late_for_it():
    """In turn the old one takes a second; half the gaps allowed are used up (0.8 % of 2,500 after this step)."""
    view = make_view(DECODES, (), [MIDDLE, OLD])
    view.gaps = GapCount(CLASSES)
    view.gaps.seen[0], view.gaps.late[0] = 2500, 0
    allowed_ms = lambda: Sarathi(slo="gap").plan(view).available_ns / NS_PER_MS  # noqa: E731
    longest_ms = 200 + 8000 * 0.1 / 0.8

    def after(share: float) -> float:
        view.waits = Waits()
        for i in range(1000):
            view.waits.note(round((longest_ms + (-1 if i % 100 < 100 * share else 1)) * NS_PER_MS))
        return allowed_ms()

    assert [after(share) for share in (1, 0.9, 0.8)] == [400, 400, 100]
    view.gaps.late[0] = 10
    assert [after(share) for share in (1, 0.95)] == [400, 100]
    assert Sarathi().plan(view).available_ns == 400 * NS_PER_MS


def test_the_longest_wait_is_that_of_arrival_order():
    rows = [SHORT, OLD, MIDDLE]
    prompts = prompts_of(rows, CLASSES)
    works_ms = np.array([10.0, 500.0, 300.0])
    assert longest_wait(prompts, works_ms * NS_PER_MS, NOW) == 1000 * NS_PER_MS
    assert longest_wait(prompts, np.array([500.0, 10.0, 10.0]) * NS_PER_MS, NOW) == 620 * NS_PER_MS


def test_where_memory_is_short_decodes_get_on():
    """Ten decodes take 20 ms. From a fifth of the memory down a step may take 80, in gap mode alone."""
    plan = lambda free, due=DECODES, **settings: Sarathi(**settings).plan(  # noqa: E731
        make_view(due, (make_row(tokens=9000),), free_blocks=free, total_blocks=1000)
    )
    assert plan(200, slo="gap").available_ns == 100 * NS_PER_MS
    short = plan(199, slo="gap")
    assert (short.available_ns, short.limit) == (80 * NS_PER_MS, "memory")
    assert short.budget < plan(200, slo="gap").budget
    assert plan(199).available_ns == 400 * NS_PER_MS
    assert plan(199, (), slo="gap").limit == "idle cap"


def test_prompts_behind_those_that_a_step_serves_count_in_its_size():
    """Two prompts fill a step together; the second waits for the first unless enough others wait behind both."""
    sizes = [
        Sarathi(slo="gap")
        .plan(make_view((), (), [make_row(tokens=1500)] * (2 + more), max_tokens=3000))
        .budget
        for more in (0, 30)
    ]
    assert sizes == [1500, 3000]


def test_gap_mode_keeps_no_memory_free():
    """What is left holds 20 of 1000 blocks, which is just the 2 % of deadline mode."""
    big = make_row("big", tokens=16 * 100)
    admits = lambda free, **settings: (  # noqa: E731
        Sarathi(**settings)
        .plan(make_view(DECODES, (), [big], free_blocks=free, total_blocks=1000))
        .max_running
        is None
    )
    assert [admits(120), admits(119)] == [True, False]
    assert [admits(100, slo="gap"), admits(99, slo="gap")] == [True, False]
    assert not admits(119, slo="gap", headroom=0.02)
