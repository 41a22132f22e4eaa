"""Tuning in the simulator: every tuned arm gets the same number of trials, on traffic that is not compared on."""

from __future__ import annotations

import os
import statistics
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.evaluate import knobs, metrics
from sarathi_plugin.evaluate.arms import arm_of
from sarathi_plugin.evaluate.store import trace_of

if TYPE_CHECKING:
    from sarathi_plugin.evaluate.spec import ArmSpec, Experiment

TIE_BREAK = 1e-3
"""Weight of the fluidity-index where the same share of requests is fluid."""


def tune_in_child(wanted: Experiment, name: str) -> knobs.Tuning:
    """``tune`` in a process of its own, which ends with its parent."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from sarathi_plugin.simulate.sweep import bind_to_parent

    bind_to_parent()
    return tune(wanted, name)


def tune(wanted: Experiment, name: str) -> knobs.Tuning:
    """All trials of one arm. Raises ConfigError when none can run."""
    spec = next(arm for arm in wanted.arms if arm.name == name)
    if wanted.tune is None:
        raise ConfigError(f"Arm {name!r} is to be tuned, but there is no tune section.")
    space = knobs.knobs_of(spec)
    trials = knobs.search(
        space,
        lambda chosen: score(wanted, spec, chosen),
        trials=wanted.tune.trials,
        seed=wanted.tune.sampler_seed,
    )
    plain = {key: knob.model_dump(exclude_none=True, exclude_defaults=True) for key, knob in space.items()}
    return knobs.Tuning(name, trials, tuple(wanted.tune.seeds), plain)


def score(wanted: Experiment, spec: ArmSpec, chosen: dict[str, Any]) -> float:
    """Mean share of fluid requests over workloads, ``load_share`` of loads, and training seeds. Raises ConfigError."""
    from sarathi_plugin.evaluate.simulated import simulation
    from sarathi_plugin.simulate.run import simulate

    arm = arm_of(wanted, spec, chosen)
    asked = wanted.tune
    seeds, count, share = (asked.seeds, asked.requests, asked.load_share) if asked else ([0], None, 1.0)
    found = []
    for case in wanted.workloads:
        for load in case.loads:
            for seed in seeds:
                trace = trace_of(case, share * load, seed, count=count)
                timelines = simulate(simulation(wanted, arm, trace, seed, steps=False)).timelines
                figures = metrics.figures(timelines)
                found.append((figures["fluid_share"] or 0.0) + TIE_BREAK * (figures["fluidity_index"] or 0.0))
    return statistics.fmean(found)
