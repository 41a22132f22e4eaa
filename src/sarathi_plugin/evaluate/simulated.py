"""Runs in the simulator: one unit is a pure function of its job."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sarathi_plugin.evaluate import metrics
from sarathi_plugin.evaluate.arms import Arm, targets_of
from sarathi_plugin.evaluate.store import Store, judged, trace_of
from sarathi_plugin.evaluate.validity import check
from sarathi_plugin.search.capacity import find_capacity
from sarathi_plugin.search.simulated import judge_simulation
from sarathi_plugin.simulate.run import Simulation, SimulationResult, simulate
from sarathi_plugin.steptime.profile import read_profile

if TYPE_CHECKING:
    from sarathi_plugin.evaluate.plan import Unit
    from sarathi_plugin.evaluate.spec import Experiment
    from sarathi_plugin.steptime.profile import StepTimeProfile
    from sarathi_plugin.workload.trace import Trace

_machine = cache(read_profile)


@dataclass(frozen=True, slots=True)
class Job:
    """A unit with all that decides its result, and the store that takes it. environment: of the record."""

    unit: Unit
    arm: Arm
    wanted: Experiment
    store: Store
    environment: str = ""


def work(job: Job) -> list[str]:
    """Run one unit and store it; returns why it is invalid, if it is. Raises ConfigError."""
    if job.unit.kind == "capacity":
        job.store.write(job.unit, {"environment": job.environment, "capacity": capacity(job)})
        return []
    case = job.wanted.workload(job.unit.workload)
    trace = trace_of(case, job.unit.load, job.unit.seed)
    result = simulate(simulation(job.wanted, job.arm, trace, noise_seed(job.unit), steps=not job.arm.stock))
    timelines = judged(result.timelines, case)
    validity = check(
        result.timelines, {r.request_id: (r.prompt_tokens, r.output_tokens) for r in trace.requests}
    )
    facts = {
        "warm_up": case.warm_up,
        "environment": job.environment,
        "validity": validity,
        "figures": metrics.figures(timelines),
        "engine": engine_facts(result),
    }
    job.store.write(job.unit, facts, timelines=result.timelines, steps=result.steps[0])
    return list(validity.reasons)


def capacity(job: Job) -> dict[str, Any]:
    """Fluid capacity of one arm on the traffic of one seed."""
    case, asked = job.wanted.workload(job.unit.workload), job.wanted.capacity
    if asked is None:
        raise ValueError("a capacity unit of an experiment without a capacity section")

    def trace_at(rate: float) -> Trace:
        return trace_of(case, rate, job.unit.seed, count=asked.requests)

    start = sorted(case.loads)[len(case.loads) // 2]
    wanted = simulation(job.wanted, job.arm, trace_at(start), noise_seed(job.unit), steps=False)
    found = find_capacity(
        judge_simulation(wanted, trace_at, share=asked.share),
        start=start,
        lowest=start / 64,
        highest=start * 64,
        resolution=asked.resolution,
        step=1.2,
    )
    return {"rate": found.rate, "limit": found.limit, "runs": len(found.tried)}


def simulation(wanted: Experiment, arm: Arm, trace: Trace, seed: int, *, steps: bool) -> Simulation:
    """What the simulator is given."""
    profile: StepTimeProfile = _machine(arm.profile)
    return Simulation(
        profile=profile,
        engine=arm.engine,
        trace=trace,
        targets=targets_of(wanted),
        seed=seed,
        keep_steps=steps,
    )


def noise_seed(unit: Unit) -> int:
    """The machine's noise: another one in every run, also of two arms alike, as on a real machine."""
    return zlib.crc32(f"{unit.workload}/{unit.load:g}/{unit.seed}/{unit.repeat}/{unit.arm}".encode())


def engine_facts(result: SimulationResult) -> dict[str, Any]:
    """What the engine did beyond its timelines."""
    one = result.engines[0]
    return {"steps": one.steps, "preemptions": one.preemptions, "virtual_s": round(one.span_ns / 1e9, 3)}
