"""Tuning in the simulator: every tuned arm gets the same number of trials, on traffic that is not compared on."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from sarathi_plugin.evaluate import knobs, metrics
from sarathi_plugin.evaluate.arms import arm_of
from sarathi_plugin.evaluate.simulated import _bind_to_parent, simulation
from sarathi_plugin.evaluate.store import trace_of
from sarathi_plugin.simulate.run import simulate

if TYPE_CHECKING:
    from sarathi_plugin.evaluate.spec import ArmSpec, Experiment

TIE_BREAK = 1e-3
"""Weight of the fluidity-index where the same share of requests is fluid."""


def tune(job: tuple[Experiment, str]) -> knobs.Tuning:
    """All trials of one arm. Raises ConfigError when none can run."""
    _bind_to_parent()
    wanted, name = job
    spec = next(arm for arm in wanted.arms if arm.name == name)
    if wanted.tune is None:
        raise ValueError("tuning without a tune section")
    space = knobs.knobs_of(spec)
    trials = knobs.search(
        space, lambda chosen: score(wanted, spec, chosen), trials=wanted.tune.trials, seed=wanted.tune.sampler_seed
    )
    plain = {key: knob.model_dump(exclude_none=True, exclude_defaults=True) for key, knob in space.items()}
    return knobs.Tuning(name, trials, tuple(wanted.tune.seeds), plain)


def score(wanted: Experiment, spec: ArmSpec, chosen: dict[str, Any]) -> float:
    """Mean share of fluid requests over workloads, loads and training seeds. Raises ConfigError."""
    if wanted.tune is None:
        raise ValueError("tuning without a tune section")
    arm = arm_of(wanted, spec, chosen)
    found = []
    for case in wanted.workloads:
        for load in case.loads:
            for seed in wanted.tune.seeds:
                trace = trace_of(case, load, seed, count=wanted.tune.requests)
                timelines = simulate(simulation(wanted, arm, trace, seed, steps=False)).timelines
                figures = metrics.figures(timelines)
                found.append((figures["fluid_share"] or 0.0) + TIE_BREAK * (figures["fluidity_index"] or 0.0))
    return statistics.fmean(found)
