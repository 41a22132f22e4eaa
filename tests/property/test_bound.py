"""The capacity bound is never below what an exhaustive search reaches, and near it."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from sarathi_plugin.deadlines import DeadlineState
from sarathi_plugin.search import local
from sarathi_plugin.search.bound import CostModel, Job, capacity_bound, feasible
from tests.exact_schedule import (
    MACHINES,
    WORKLOADS,
    Exhaustive,
    Instance,
    draw,
    draw_cost,
    largest_factor,
    step_ns,
)

SEED = 20_260
CASES = [(workload, machine, number) for workload in WORKLOADS for machine in MACHINES for number in range(3)]


def instance(workload: str, machine: str, number: int) -> Instance:
    return draw(np.random.default_rng([SEED, WORKLOADS.index(workload), number]), workload, machine)


@pytest.mark.parametrize(("workload", "machine", "number"), CASES)
def test_whatever_has_a_schedule_is_feasible(workload: str, machine: str, number: int):
    case = instance(workload, machine, number)
    exhaustive = Exhaustive(case)
    for factor in np.geomspace(0.02, 50, 20):
        if exhaustive.possible(factor):
            assert feasible(case.compressed(factor), case.cost, share=1), factor


@pytest.mark.parametrize("levels", [(1,), (2,), (3,)])
@pytest.mark.parametrize("machine", MACHINES)
def test_coarse_progress_is_rounded_in_the_schedulers_favour(
    machine: str, levels: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(local, "LEVELS", levels)
    for workload in WORKLOADS:
        case = instance(workload, machine, 9)
        exhaustive = Exhaustive(case)
        for factor in np.geomspace(0.05, 20, 16):
            if exhaustive.possible(factor):
                assert feasible(case.compressed(factor), case.cost, share=1), (workload, factor)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_no_schedule_exists_above_the_bound(workload: str):
    for machine in MACHINES:
        case = instance(workload, machine, 5)
        bound = capacity_bound(case.jobs, case.cost, share=1)
        if bound < inf:
            exhaustive = Exhaustive(case)
            assert not any(
                exhaustive.possible(bound * above) for above in (1.001, 1.01, 1.03, 1.1, 1.5, 3, 1e6)
            )


def test_the_bound_is_near_what_can_be_reached():
    gaps = []
    for number in range(10):
        case = instance(WORKLOADS[number % 4], MACHINES[0], 10 + number)
        bound = capacity_bound(case.jobs, case.cost, share=1)
        if bound < inf:
            gaps.append(bound / largest_factor(case, bound) - 1)
    assert len(gaps) >= 5
    assert np.median(gaps) <= 0.1


def test_an_arrival_time_offset_changes_nothing():
    case = instance("classes", "small", 1)
    moved = [type(job)(job.arrival_ns + 10**12, *(getattr(job, f) for f in ("prompt_tokens", "output_tokens",
             "tbt_ns", "first_ns"))) for job in case.jobs]  # fmt: skip
    bounds = [capacity_bound(jobs, case.cost, share=1) for jobs in (case.jobs, moved)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-6)


def serve(jobs: list[Job], cost: CostModel, budget: int) -> float:
    """Share of fluid jobs when every step takes all decodes and up to ``budget`` prompt tokens, earliest due first."""
    states = [DeadlineState.from_arrival(j.arrival_ns, j.first_ns, j.tbt_ns) for j in jobs]
    computed, out, now = [0] * len(jobs), [0] * len(jobs), 0
    while any(n < job.output_tokens for n, job in zip(out, jobs, strict=True)):
        here = [i for i, job in enumerate(jobs) if job.arrival_ns <= now and out[i] < job.output_tokens]
        if not here:
            now = min(job.arrival_ns for job in jobs if job.arrival_ns > now)
            continue
        decodes = [i for i in here if out[i]]
        left, chunks = budget, {}
        for i in sorted((i for i in here if not out[i]), key=lambda i: states[i].next_deadline_ns):
            take = min(left, jobs[i].prompt_tokens - computed[i])
            if take:
                chunks[i] = take
                left -= take
        contexts = [jobs[i].prompt_tokens + out[i] - 1 for i in decodes]
        now += step_ns(cost, contexts, [(take, computed[i]) for i, take in chunks.items()])
        for i, take in chunks.items():
            computed[i] += take
        for i in decodes + [i for i in chunks if computed[i] == jobs[i].prompt_tokens]:
            states[i].emit(now)
            out[i] += 1
    fluid = [state.met >= 9 * state.missed for state in states]
    return sum(fluid) / len(jobs)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("machine", MACHINES)
def test_what_a_scheduler_serves_is_feasible_for_that_share(machine: str, number: int):
    rng = np.random.default_rng([SEED, 1, number])
    cost = draw_cost(rng, machine)
    chunk = 1 if machine == "small" else 256
    one = cost.host_ns + cost.linear(1) + cost.decode_step_ns
    arrivals = np.cumsum(rng.exponential(1, 70))
    jobs = []
    for arrival in arrivals:
        prompt, output = chunk * int(rng.integers(1, 9)), int(rng.integers(1, 25))
        first = int(step_ns(cost, [], [(prompt, 0)]) * rng.uniform(1.5, 6))
        jobs.append((arrival, prompt, output, int(one * rng.uniform(2, 5)), first))
    shares = []
    for gap in np.geomspace(0.5, 8, 6) * step_ns(cost, [], [(4 * chunk, 0)]):
        now = [Job(int(a * gap), n, o, d, p) for a, n, o, d, p in jobs]
        for budget in (2 * chunk, 6 * chunk):
            shares.append(serve(now, cost, budget))
            assert not shares[-1] or feasible(now, cost, share=shares[-1])
    assert any(0.5 < share < 1 for share in shares)
