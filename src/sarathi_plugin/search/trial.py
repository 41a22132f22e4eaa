"""One configuration of a search, simulated: its capacity or how it carries the load, and what it costs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sarathi_plugin.config import ConfigError, explain
from sarathi_plugin.search.capacity import Verdict, find_capacity
from sarathi_plugin.search.criteria import Fluid
from sarathi_plugin.search.deployment import Deployment, Traffic, check_policy, first_guess
from sarathi_plugin.search.figures import figures_of
from sarathi_plugin.search.repeats import SPAN
from sarathi_plugin.search.simulated import EarlyStop, judge_simulation
from sarathi_plugin.search.space import engine_data
from sarathi_plugin.search.tally import AllLost
from sarathi_plugin.simulate.run import simulate
from sarathi_plugin.simulate.spec import EngineSpec

if TYPE_CHECKING:
    from sarathi_plugin.search.space import Config, SearchFile
    from sarathi_plugin.simulate.run import SimulationResult

COARSE_RESOLUTION, COARSE_STEP = 0.08, 1.5
FLOOR = 0.5
"""At a given load a run that cannot pass is given up once no more than this share of the requests can be fluid: such a
configuration is not worth to be known any better."""

Row = dict[str, Any]
"""What came of a trial: config, cost, capacity or None, figures, passed, hopeless, reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """hurdle: load per unit of cost (see ``unit_cost``) that it must carry, or is hopeless; 0 for none.

    seed: of traffic and noise. resolution, step: of the search for its capacity.
    """

    config: Config
    wanted: SearchFile
    hurdle: float = 0.0
    seed: int = 0
    resolution: float = COARSE_RESOLUTION
    step: float = COARSE_STEP
    start: float | None = None


def deployment_of(config: Config, wanted: SearchFile) -> Deployment:
    """What would be run. Raises ConfigError when its engine arguments do not go together."""
    try:
        engine = EngineSpec.model_validate(engine_data(config, wanted.engine))
    except ValidationError as error:
        raise ConfigError(explain(error, "engine", EngineSpec)) from error
    check_policy(engine)
    return Deployment(
        profile=config["profile"],
        engine=engine,
        promise=wanted.promise,
        replicas=config["replicas"],
        router=wanted.router,
    )


def unit_cost(deployment: Deployment, wanted: SearchFile) -> float:
    """What an hour of it costs: money where there are prices, else devices."""
    price = wanted.price_of(deployment.profile)
    return deployment.devices * (1.0 if price is None else price)


def run_trial(trial: Trial) -> Row:
    """Simulate it: pure in its argument but for the time it says it took."""
    begin = time.process_time()
    row = _row(trial)
    try:
        found = _at_load(trial) if trial.wanted.rate is not None else _capacity(trial)
    except (
        ConfigError
    ) as error:  # a corner of the space that cannot serve, as one request too long for the memory
        found = {"hopeless": True, "passed": False, "capacity": None, "figures": {}, "reason": str(error)}
    row |= found
    return {**row, "per_million_tokens": per_million(row), "cpu_s": round(time.process_time() - begin, 2)}


def _row(trial: Trial) -> Row:
    deployment = deployment_of(trial.config, trial.wanted)
    trace = Traffic(trial.wanted.the_workload(), trial.wanted.requests).at(
        trial.wanted.rate or 1.0, trial.seed
    )
    tokens = sum(request.total_tokens for request in trace.requests) / len(trace.requests)
    return {
        "config": trial.config,
        "devices": deployment.devices,
        "cost_per_hour": unit_cost(deployment, trial.wanted),
        "priced": bool(trial.wanted.prices),
        "tokens_per_request": tokens,
        "load": trial.wanted.rate,
    }


def per_million(row: Row) -> float | None:
    """Cost of a million tokens, prompts included, at the load or the capacity; None where there is neither."""
    rate = row["load"] or row["capacity"]
    if not rate or row["hopeless"]:
        return None
    return float(row["cost_per_hour"] / (rate * 3600 * row["tokens_per_request"]) * 1e6)


def _capacity(trial: Trial) -> Row:
    """The highest rate that passes, unless it fails at the hurdle already."""
    deployment = deployment_of(trial.config, trial.wanted)
    workload = trial.wanted.the_workload()
    # A trace has the rows it has; of a kind, every replica gets its share.
    count = trial.wanted.requests * (deployment.replicas if workload.kind else 1)
    traffic = Traffic(workload, count)
    best: dict[float, SimulationResult] = {}
    tried: dict[float, Verdict] = {}
    judge = judge_simulation(
        deployment.simulation(traffic.at(1.0, trial.seed), trial.seed),
        lambda rate: traffic.at(rate, trial.seed),
        criterion=trial.wanted.criterion,
        passed=lambda rate, result: best.update({rate: result}),
    )

    def once(rate: float) -> Verdict:
        if rate not in tried:
            tried[rate] = judge(rate)
        return tried[rate]

    start = trial.start or first_guess(deployment, traffic)
    if trial.hurdle:
        hurdle = trial.hurdle * unit_cost(deployment, trial.wanted)
        if not once(hurdle).passed:
            return _lost(tried[hurdle].reason, below=hurdle)
        start = hurdle
    found = find_capacity(
        once,
        start=start,
        lowest=start / SPAN,
        highest=start * SPAN,
        resolution=trial.resolution,
        step=trial.step,
    )
    figures = figures_of(best[max(best)].timelines) if best else {}
    return {
        "hopeless": not figures,
        "passed": bool(figures),
        "capacity": found.rate,
        "figures": figures,
        "reason": found.limit,
    }


def _lost(reason: str, **more: Any) -> Row:
    return {"hopeless": True, "passed": False, "capacity": None, "figures": {}, "reason": reason, **more}


def _at_load(trial: Trial) -> Row:
    """How it carries the load that is asked for."""
    rate = trial.wanted.rate or 0.0
    deployment = deployment_of(trial.config, trial.wanted)
    traffic = Traffic(trial.wanted.the_workload(), trial.wanted.requests)
    simulation = deployment.simulation(traffic.at(rate, trial.seed), trial.seed)
    criteria = (
        trial.wanted.criterion,
        Fluid(share=FLOOR),
    )  # the first may pass where hardly anybody is fluid
    watch = EarlyStop(AllLost(*(by.tally(simulation.trace, simulation.targets) for by in criteria)))
    result = simulate(simulation, watch=watch)
    if not result.complete:
        return _lost(watch.tally.reason)
    verdict = trial.wanted.criterion.verdict(rate, result.timelines)
    return {
        "hopeless": False,
        "passed": verdict.passed,
        "capacity": None,
        "figures": figures_of(result.timelines),
        "reason": verdict.reason,
    }


def finals_of(rows: list[Row], wanted: SearchFile) -> list[Trial]:
    """The best configurations again, with seeds that chose nothing, finer."""
    first = wanted.seed + 1
    return [
        Trial(
            config=row["config"],
            wanted=wanted,
            seed=seed,
            resolution=COARSE_RESOLUTION / 4,
            step=1.1,
            start=row["capacity"],
        )
        for row in rows
        for seed in range(first, first + wanted.repeats)
    ]


def one_replica(config: Config) -> Config:
    """The same with a single engine: what a live check can serve."""
    return {**config, "replicas": 1}


def with_rate(wanted: SearchFile, rate: float | None) -> SearchFile:
    """The same search at another load."""
    return wanted.model_copy(update={"rate": rate})


def predicted(config: Config, wanted: SearchFile, seeds: range, start: float | None = None) -> list[Trial]:
    """Trials whose capacities predict what one replica of a configuration carries live."""
    base = Trial(
        config=one_replica(config), wanted=with_rate(wanted, None), resolution=0.02, step=1.15, start=start
    )
    return [replace(base, seed=seed) for seed in seeds]
