"""The capacity bound on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.deadlines import DeadlineState
from sarathi_plugin.search.bound import CostModel, Job, capacity_bound, feasible, obstacle
from sarathi_plugin.search.relaxation import late_periods, supporting_lines
from sarathi_plugin.search.windows import stabbing_times

MS = 1_000_000


def machine(base_ms: float = 10, token_ms: float = 1, **costs: float) -> CostModel:
    """A step takes base + token x tokens."""
    return CostModel((base_ms + token_ms * np.arange(65.0)) * MS, **costs)


def prompts(count: int, gap_ms: float, allowed_ms: float, tokens: int = 10) -> list[Job]:
    """Requests of one output token, evenly apart."""
    return [Job(round(i * gap_ms * MS), tokens, 1, 50 * MS, round(allowed_ms * MS)) for i in range(count)]


def fluid_when(token_ns: list[int], first_ns: int, tbt_ns: int) -> bool:
    state = DeadlineState.from_arrival(0, first_ns, tbt_ns)
    for now in token_ns:
        state.emit(now)
    return state.met / (state.met + state.missed) >= 0.9


@pytest.mark.parametrize("tokens", range(1, 60))
def test_the_late_budget_is_exact(tokens: int):
    missed = int(late_periods(np.array([float(tokens)]))[0])
    # All of it spent on the first token, which shifts every deadline after it by just under so many periods.
    last = missed * 100 - 1 if missed else 0
    on_time = [50 + last + i * 100 for i in range(tokens)]
    assert fluid_when(on_time, 50, 100)
    assert not fluid_when([t + 1 for t in on_time], 50, 100)


def test_supporting_lines_are_below_every_step():
    table = np.concatenate([[0.0], np.sort(np.random.default_rng(3).uniform(5, 50, 200))]) * MS
    cost = CostModel(table, host_ns=2 * MS)
    sizes = np.arange(1, 400)
    steps = np.array([cost.host_ns + cost.linear(n) for n in sizes])
    lines = supporting_lines(cost)
    under = lines[:, :1] + lines[:, 1:] * sizes
    assert (lines[:, 0] >= 0).all()
    assert (under <= steps * (1 + 1e-9)).all()
    # They touch: at one token, and where a token costs least.
    assert under[:, 0].max() == pytest.approx(steps[0])
    assert (under / steps)[:, :200].max() == pytest.approx(1)


def test_stabbing_shares_steps_between_jobs_and_not_between_tokens_of_one():
    def count(jobs: list[tuple[float, float, float, float, float]]) -> int:
        columns = np.array(jobs, float).T[:, None, :]
        return stabbing_times(*columns, last=1e9).shape[1]

    # (ready, step, due, tbt, tokens)
    assert count([(1, 1, 10, 10, 3)]) == 3
    assert count([(1, 1, 10, 10, 3), (1, 1, 12, 10, 3)]) == 3
    assert count([(1, 1, 10, 10, 1), (11, 1, 20, 10, 1)]) == 2


def test_one_prompt_is_possible_exactly_as_long_as_it_fits():
    assert feasible(prompts(1, 0, 20), machine(), share=1)
    assert obstacle(prompts(1, 0, 19.9), machine(), share=1) == "latency"


def test_prompts_that_cannot_share_a_step_each_pay_for_their_own():
    # 20 ms each. Apart by less, the second starts when the first is done: 20 + 20 - gap <= 22.
    bound = capacity_bound(prompts(2, 100, 22), machine(), share=1)
    assert bound == pytest.approx(100 / 18, rel=0.01)


def test_throughput_of_many_prompts_is_bounded_by_their_tokens():
    # At best all tokens in one step: 10 + 10 n ms within 19 x gap + 60 ms.
    bound = capacity_bound(prompts(20, 100, 60), machine(), share=1, search=False)
    assert 100 / bound == pytest.approx((10 + 200 - 60) / 19, rel=0.2)
    assert obstacle(prompts(20, 5, 60), machine(), share=1) == "prefill"


def test_decodes_need_a_step_per_token():
    job = Job(0, 1, 9, 11 * MS, 30 * MS)
    # 11 ms for the prompt, 11 + x for each of 8 more tokens; the last is due at 30 + 8 x 11 = 118.
    assert feasible([job], machine(decode_step_ns=2.37 * MS), share=1)
    assert obstacle([job], machine(decode_step_ns=2.38 * MS), share=1) == "latency"


def test_context_and_pairs_are_charged():
    job = Job(0, 10, 2, 20 * MS, 20 * MS)
    assert feasible([job], machine(), share=1)
    assert feasible([job], machine(decode_context_token_ns=0.8 * MS), share=1)
    assert not feasible([job], machine(decode_context_token_ns=1.01 * MS), share=1)
    # Of the 40 ms until the second token, prompt and decode take 20 + 11.
    assert feasible([job], machine(decode_row_ns=8 * MS), share=1)
    assert not feasible([job], machine(decode_row_ns=10.1 * MS), share=1)
    assert not feasible([job], machine(prefill_pair_ns=0.001 * MS), share=1)
    assert not feasible([job], machine(prefill_token_ns=0.001 * MS), share=1)
    assert not feasible([job], machine(prefill_step_ns=0.001 * MS), share=1)
    assert not feasible([job], machine(host_ns=0.001 * MS), share=1)


def test_a_step_under_way_cannot_be_cut():
    # 30 tokens take 40 ms; the 11 ms prompt that arrives at 20 must start within 1 ms of it: then the long one is cut.
    long, short = Job(0, 30, 1, MS, 52 * MS), Job(20 * MS, 1, 1, MS, 12 * MS)
    assert feasible([long], machine(), share=1)
    assert obstacle([long, short], machine(), share=1, search=False) is None
    assert obstacle([long, short], machine(), share=1) == "steps"


def test_a_share_of_the_jobs_may_be_dropped():
    good = prompts(99, 100, 25)
    hopeless = Job(5 * MS, 60, 1, 50 * MS, 10 * MS)
    assert not feasible([*good, hopeless], machine(), share=1)
    assert feasible([*good, hopeless], machine())
    assert not feasible([*good, hopeless, hopeless], machine())


def test_share_lifts_the_bound_and_more_jobs_never_do():
    jobs = prompts(100, 40, 60)
    all_of_them = capacity_bound(jobs, machine(), share=1, search=False)
    assert all_of_them < capacity_bound(jobs, machine(), share=0.9, search=False)
    assert all_of_them <= capacity_bound(jobs[:50], machine(), share=1, search=False) * 1.01


def test_all_at_once_is_an_infinite_factor_and_never_is_zero():
    assert capacity_bound(prompts(3, 100, 60), machine(), share=1) == np.inf
    assert capacity_bound([], machine()) == np.inf
    assert capacity_bound(prompts(3, 100, 19), machine(), share=1) == 0


@pytest.mark.parametrize(
    ("jobs", "options", "sentence"),
    [
        (prompts(1, 0, 20), {"share": 0}, "share of fluid requests is 0"),
        (prompts(1, 0, 20), {"share": 1.5}, "share of fluid requests is 1.5"),
        (prompts(1, 0, 20), {"resolution": 0}, "resolution is 0"),
        ([Job(0, 0, 1, MS, MS)], {}, "no prompt"),
        ([Job(0, 1, 1, 0, MS)], {}, "no D_d"),
    ],
)
def test_nonsense_is_refused(jobs: list[Job], options: dict[str, float], sentence: str):
    with pytest.raises(ConfigError, match=sentence):
        capacity_bound(jobs, machine(), **options)


@pytest.mark.parametrize(
    ("table", "costs"),
    [([0.0, 1.0], {}), ([0.0, 2.0, 1.0], {}), ([0.0, 0.0, 1.0], {}), ([0.0, 1.0, 2.0], {"host_ns": -1.0})],
)
def test_an_impossible_machine_is_refused(table: list[float], costs: dict[str, float]):
    with pytest.raises(ConfigError):
        CostModel(np.array(table), **costs)
