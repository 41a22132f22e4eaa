"""Fluid capacity on the simulator: the early stop changes no verdict, and what is found holds."""

from __future__ import annotations

import pytest

from sarathi_plugin.search.capacity import find_capacity, judge_timelines
from sarathi_plugin.search.profiled import rate_bound
from sarathi_plugin.search.simulated import failed_share, judge_simulation
from sarathi_plugin.simulate.run import Simulation, simulate
from sarathi_plugin.simulate.spec import EngineSpec
from tests.engine.simulations import NOISE, TARGETS, make_profile, make_traffic

pytestmark = pytest.mark.vllm


def wanted(scheduler: str, **engine: object) -> Simulation:
    settings = {} if scheduler == "stock" else {"tbt_ms": 50, "ttft_slack_ms": 300}
    return Simulation(
        profile=make_profile(noise=NOISE),
        engine=EngineSpec(scheduler=scheduler, sarathi=settings, **engine),
        trace=make_traffic(150, gap_s=1.0),
        targets=TARGETS,
    )


@pytest.mark.parametrize("scheduler", ["stock", "sarathi"])
def test_stopping_early_does_not_change_a_verdict(scheduler: str) -> None:
    asked = wanted(scheduler)
    judge = judge_simulation(asked, asked.trace.scaled)
    passed = []
    for rate in (4, 8, 16, 24, 32, 48):
        quick = judge(rate)
        whole = judge_timelines(
            rate, simulate(Simulation(**fields(asked) | {"trace": asked.trace.scaled(rate)})).timelines
        )
        assert quick.passed == whole.passed
        assert quick.fluid_share >= whole.fluid_share - 1e-9
        passed.append(quick.passed)
    assert passed[0]
    assert not passed[-1]


def fields(asked: Simulation) -> dict[str, object]:
    return {name: getattr(asked, name) for name in Simulation.__slots__}


def test_capacity_is_where_requests_begin_to_fail() -> None:
    asked = wanted("stock", max_num_batched_tokens=512)
    found = find_capacity(
        judge_simulation(asked, asked.trace.scaled), start=10, lowest=1, highest=100, resolution=0.05
    )
    assert 1 < found.rate < 100
    assert "fluid" in found.limit or "delay" in found.limit
    at = Simulation(**fields(asked) | {"trace": asked.trace.scaled(found.rate)})
    over = Simulation(**fields(asked) | {"trace": asked.trace.scaled(1.3 * found.rate)})
    assert failed_share(at) <= 0.01 < failed_share(over)


@pytest.mark.parametrize("scheduler", ["stock", "sarathi", "sarathi-static"])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_policy_exceeds_the_bound_and_the_bound_is_near(scheduler: str, seed: int) -> None:
    asked = Simulation(
        **fields(wanted(scheduler))
        | {"profile": make_profile(), "trace": make_traffic(100, gap_s=1.0, seed=seed)}
    )
    found = find_capacity(
        judge_simulation(asked, asked.trace.scaled), start=10, lowest=1, highest=100, resolution=0.05
    )
    bound = rate_bound(asked.trace, asked.targets, asked.profile, overlapped=True) / asked.trace.rate
    assert found.rate <= bound < 3 * found.rate
