"""``sarathi capacity`` on a simulated machine: searches over cores, and how many replicas a load needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from sarathi_plugin.config import ConfigError, explain
from sarathi_plugin.search.attempts import Answer, Failed, attempt
from sarathi_plugin.search.capacity_command import result_of, schedulers_of
from sarathi_plugin.search.deployment import Deployment, Traffic, check_policy, first_guess
from sarathi_plugin.search.figures import etalon_of, figures_of
from sarathi_plugin.search.repeats import Repeated, one_repeat
from sarathi_plugin.search.replicas import find_replicas
from sarathi_plugin.search.simulated import judge_simulation
from sarathi_plugin.simulate.routing import make_router
from sarathi_plugin.simulate.spec import EngineSpec
from sarathi_plugin.simulate.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sarathi_plugin.load.server import ServerError
    from sarathi_plugin.search.capacity import Capacity, Verdict
    from sarathi_plugin.search.capacity_command import Task, Wanted
    from sarathi_plugin.search.criteria import Criterion
    from sarathi_plugin.simulate.run import SimulationResult
    from sarathi_plugin.workload.trace import Trace

Job = TypeVar("Job")
Result = TypeVar("Result")

LEAST_S = 120.0
"""A number of replicas is tried with at least so many seconds of traffic: a short burst would fit into few."""

MOST_REPLICAS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One capacity search: one deployment, one seed. start: where it begins, requests per second."""

    label: str
    deployment: Deployment
    traffic: Traffic
    criterion: Criterion
    seed: int
    start: float
    resolution: float
    step: float = 1.3


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, and the figures of its run at the highest rate that passed (none when none did)."""

    capacity: Capacity
    figures: dict[str, Any]


def run_search(search: Search) -> Found:
    """Search one capacity: pure in its argument."""
    best: dict[float, SimulationResult] = {}

    def keep(rate: float, result: SimulationResult) -> None:
        if not best or rate > max(best):
            best.clear()
            best[rate] = result

    judge = judge_of(search, keep)
    capacity = one_repeat(judge, start=search.start, resolution=search.resolution, step=search.step)
    timelines = next(iter(best.values())).timelines if best else []
    return Found(capacity, figures_of(timelines) | etalon_of(timelines) if timelines else {})


def judge_of(
    search: Search, passed: Callable[[float, SimulationResult], None] | None = None
) -> Callable[[float], Verdict]:
    """The judge of a search."""
    wanted = search.deployment.simulation(search.traffic.at(search.start, search.seed), search.seed)
    return judge_simulation(
        wanted,
        lambda rate: search.traffic.at(rate, search.seed),
        criterion=search.criterion,
        passed=passed,
    )


def deployments_of(task: Task) -> list[tuple[str, Deployment]]:
    """(label, deployment) of every scheduler asked for. Raises ConfigError."""
    wanted = task.wanted
    make_router(wanted.router)
    found = []
    for scheduler in schedulers_of(task):
        data = task.settings if scheduler is None else {**task.settings, "scheduler": scheduler}
        try:
            engine = EngineSpec.model_validate(data)
        except ValidationError as error:
            raise ConfigError(explain(error, str(wanted.engine or "engine"), EngineSpec)) from error
        check_policy(engine)
        deployment = Deployment(
            profile=wanted.where,
            engine=engine,
            promise=task.promise,
            replicas=wanted.replicas,
            router=wanted.router,
        )
        found.append((engine.scheduler, deployment))
    return found


def simulated(task: Task, *, say: Callable[[str], None]) -> list[Answer]:
    """Capacity of every scheduler, repeats and schedulers side by side on all cores."""
    wanted = task.wanted
    traffic = Traffic(task.workload, task.requests)
    deployments = deployments_of(task)
    jobs = [
        Search(
            label=label,
            deployment=deployment,
            traffic=traffic,
            criterion=task.criterion,
            seed=seed,
            start=wanted.start or first_guess(deployment, traffic),
            resolution=wanted.resolution,
        )
        for label, deployment in deployments
        for seed in task.seeds
    ]
    for label, deployment in deployments:
        deployment.simulation(
            traffic.at(jobs[0].start, wanted.seed), wanted.seed
        )  # bad input is told before it runs
        say(f"{label}: {wanted.repeats} searches of {traffic.requests or 'all'} requests a run")
    found: dict[tuple[str, int], Found] = {}
    failed: dict[str, Failed] = {}
    for done, (job, result) in enumerate(_attempts(run_search, jobs, wanted), 1):
        if isinstance(result, Found):
            found[job.label, job.seed] = result
            text = f"{result.capacity.text}, limit: {result.capacity.limit or 'none met'}"
        else:
            failed.setdefault(job.label, Failed(job.label, result))
            text = "failed"
        say(f"{done}/{len(jobs)} {job.label}, seed {job.seed}: {text}")
    return [
        failed.get(label)
        or result_of(
            label,
            Repeated(tuple(found[label, seed].capacity for seed in task.seeds), wanted.resolution),
            found[label, task.seeds[0]].figures,
            engine=deployment.engine.model_dump(mode="json", exclude_defaults=True),
            replicas=deployment.replicas,
            devices=deployment.devices,
        )
        for label, deployment in deployments
    ]


def _attempts(
    work: Callable[[Job], Result], jobs: Sequence[Job], wanted: Wanted
) -> Iterator[tuple[Job, Result | ConfigError | ServerError]]:
    """(job, its result or failure), as they finish."""
    pairs = [(work, job) for job in jobs]
    for (_, job), result in sweep(attempt, pairs, workers=wanted.workers, ray_address=wanted.ray_address):
        yield job, result


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """How many replicas carry a rate (None: the trace's own arrivals), by every seed."""

    label: str
    deployment: Deployment
    traffic: Traffic
    criterion: Criterion
    seeds: tuple[int, ...]
    rate: float | None
    most: int = MOST_REPLICAS


def _whatever(trace: Trace, _rate: float) -> Trace:
    return trace


def size(sizing: Sizing) -> dict[str, Any]:
    """The fewest replicas that pass under every seed, and what broke with one fewer."""

    def judge(replicas: int) -> Verdict:
        deployment = replace(sizing.deployment, replicas=replicas)
        for seed in sizing.seeds:
            trace = sizing.traffic.at(sizing.rate, seed)
            wanted = deployment.simulation(trace, seed)
            judge_it = judge_simulation(wanted, partial(_whatever, trace), criterion=sizing.criterion)
            verdict = judge_it(trace.rate)
            if not verdict.passed:
                break
        return verdict

    needed, reason = find_replicas(judge, most=sizing.most)
    return {
        "label": sizing.label,
        "engine": sizing.deployment.engine.model_dump(mode="json", exclude_defaults=True),
        "rate": sizing.traffic.at(sizing.rate, sizing.seeds[0]).rate if sizing.rate is None else sizing.rate,
        "replicas_needed": needed,
        "devices": None if needed is None else replace(sizing.deployment, replicas=needed).devices,
        "most": sizing.most,
        "reason": reason,
    }


def replicas_needed(task: Task, *, say: Callable[[str], None]) -> list[Answer]:
    """How many replicas the load needs, for every scheduler."""
    wanted = task.wanted
    rate = None
    if wanted.replicas_for != "trace":
        try:
            rate = float(str(wanted.replicas_for))
        except ValueError as error:
            raise ConfigError(
                f"Give --replicas-for as requests per second or as trace, not {wanted.replicas_for!r}."
            ) from error
        if not rate > 0:
            raise ConfigError(f"--replicas-for needs a rate above zero, not {rate:g}.")
    traffic = Traffic(task.workload, task.requests)
    if rate is not None and task.workload.kind is not None:
        traffic = traffic.lasting(rate, LEAST_S)
    jobs = [
        Sizing(
            label=label,
            deployment=deployment,
            traffic=traffic,
            criterion=task.criterion,
            seeds=tuple(task.seeds),
            rate=rate,
        )
        for label, deployment in deployments_of(task)
    ]
    for job in jobs:
        job.deployment.simulation(traffic.at(rate, wanted.seed), wanted.seed)
    say(f"{len(jobs[0].traffic.at(rate, wanted.seed).requests)} requests a run")
    rows: dict[str, Answer] = {
        job.label: row if isinstance(row, dict) else Failed(job.label, row)
        for job, row in _attempts(size, jobs, wanted)
    }
    return [rows[job.label] for job in jobs]
