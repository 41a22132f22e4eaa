"""From the folder of an experiment to its report: the answer first, then what it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from sarathi_plugin.config import ConfigError, explain
from sarathi_plugin.core import NS_PER_MS, StepShape
from sarathi_plugin.evaluate import pictures, plan, sections
from sarathi_plugin.evaluate.analysis import Results
from sarathi_plugin.evaluate.checklist import checklist
from sarathi_plugin.evaluate.document import Report
from sarathi_plugin.evaluate.evidence import Evidence, Item
from sarathi_plugin.evaluate.metrics import METRICS
from sarathi_plugin.evaluate.shapes import EnvironmentFile, ResolvedFile, read_json, read_shape
from sarathi_plugin.evaluate.spec import Experiment
from sarathi_plugin.evaluate.store import EXPERIMENT, RESOLVED, Store, read_tuning, replayed, writing
from sarathi_plugin.steptime.machine import ProfileModel
from sarathi_plugin.steptime.profile import read_profile

if TYPE_CHECKING:
    from pathlib import Path

    from sarathi_plugin.evaluate.analysis import Cell, Claim
    from sarathi_plugin.evaluate.store import StoredRun

LONE_CONTEXT = 1024


def write(out: Path) -> str:
    """Write ``report.html`` and ``report.md`` of an experiment's folder; returns the answer. Raises ConfigError."""
    report = build(out)
    with writing(out):
        report.write(out)
    return report.answer


def build(out: Path) -> Report:
    """The report of what has been run so far. Raises ConfigError for a folder without runs or with damaged ones."""
    if not (out / EXPERIMENT).is_file():
        raise ConfigError(f"{out} holds no experiment; give a folder that sarathi evaluate wrote.")
    try:
        wanted = Experiment.model_validate(read_json(out / EXPERIMENT))
    except ValidationError as error:
        raise ConfigError(explain(error, str(out / EXPERIMENT))) from error
    store = Store(out)
    arms = _arms(out / RESOLVED)
    units = plan.units_of(wanted, list(arms)) if arms else []
    runs = store.runs(units)
    if not runs:
        raise ConfigError(f"{out} holds no finished run yet; run sarathi evaluate first.")
    resolution = wanted.capacity.resolution if wanted.capacity else 0.0
    results = Results(runs, list(arms), {case.name: case.requests for case in wanted.workloads}, resolution)
    data = sections.Data(wanted, results, arms)
    for run in runs:
        if run.valid and run.unit.kind == "run":
            _take(data, run)
    environments = {
        path.stem.removeprefix("environment-"): read_shape(path, EnvironmentFile, "an environment")[0]
        for path in sorted(out.glob("environment-*.json"))
    }
    tuning = read_tuning(store.out, wanted)
    samples = {
        arm: min((len(found) for found in data.judged.get(arm, {}).values()), default=0) for arm in arms
    }
    evidence = Evidence(wanted, arms, tuning, results, environments, _decode_ms(data), samples)
    items = checklist(evidence)
    claim = results.claim(METRICS[wanted.metric], wanted.subject, wanted.baseline)
    return Report(
        title=f"{wanted.name} ({wanted.mode})",
        answer=claim.sentence(where(wanted)),
        notes=[
            *notes(claim, items, len(runs), len(units), results),
            *one_traffic(wanted),
            *plan.not_simulated(wanted),
        ],
        sections=[
            sections.answers(data),
            sections.checks(items),
            pictures.capacities(data),
            pictures.distributions(data),
            sections.tables(data),
            pictures.phases(data),
            pictures.worst(data),
            pictures.composition(data),
            sections.tuning(data, tuning),
            sections.runs(data),
            sections.setting(data, environments),
        ],
    )


def _arms(path: Path) -> dict[str, Any]:
    """Arms by name as they were resolved; none before that. Raises ConfigError."""
    if not path.is_file():
        return {}
    data, _ = read_shape(path, ResolvedFile, "a list of arms")
    return {arm["name"]: arm for arm in data["arms"]}


def where(wanted: Experiment) -> str:
    """On what the answer rests, in a few words."""
    names = " and ".join(case.name for case in wanted.workloads)
    if wanted.metric == "capacity":
        return f"on {names}"
    loads = sorted({load for case in wanted.workloads for load in case.loads})
    return f"on {names} at {', '.join(f'{load:g}' for load in loads)} requests/s"


def notes(claim: Claim, items: list[Item], done: int, total: int, results: Results) -> list[str]:
    """What limits the answer."""
    found = []
    if done < total:
        found.append(f"Unfinished: {done} of {total} runs are done.")
    if results.invalid:
        found.append(f"{len(results.invalid)} invalid runs are not used.")
    if claim.over == "repeats" and claim.estimate is not None:
        found.append(
            "One seed: the interval is over repeats of the same traffic and says nothing of other traffic."
        )
    failed = [item for item in items if item.verdict == "fail"]
    if failed:
        found.append(
            f"{len(failed)} items of the checklist failed: {'; '.join(item.question for item in failed)}"
        )
    return found


def one_traffic(wanted: Experiment) -> list[str]:
    """Where seeds are no more than repeats, in a sentence."""
    same = replayed(wanted)
    if not same or len(wanted.seeds) == 1:
        return []
    return [
        f"{', '.join(same)}: a replayed trace is the same requests under every seed, so what is over seeds is over "
        "repeats of the same traffic and says nothing of other traffic."
    ]


def _take(data: sections.Data, run: StoredRun) -> None:
    """Sort one run's timelines and steps in."""
    cell: Cell = (run.unit.workload, run.unit.load)
    case = data.wanted.workload(run.unit.workload)
    timelines = run.timelines(skip=case.warm_up)
    data.judged[run.unit.arm].setdefault(cell, []).extend(timelines)
    server = run.server_timelines(case.requests)
    known = [t for t in server or timelines if t.scheduled_ns is not None]
    data.known[run.unit.arm].setdefault(cell, []).extend(known)
    if cell == data.hardest and (records := run.steps()):
        data.steps.setdefault(run.unit.arm, []).extend(records)


def _decode_ms(data: sections.Data) -> float | None:
    """A decode step of one request of 1,024 tokens on the simulated machine, milliseconds.

    Live: the fastest tenth of the recorded decode steps, None without a record.
    """
    if data.wanted.mode == "simulated":
        profile = read_profile(data.wanted.profile)
        return (
            ProfileModel(profile).predict_ns(StepShape(1, 1, LONE_CONTEXT)) / NS_PER_MS
            + 1000 * profile.host_s
        )
    times = [
        step.duration_ns for steps in data.steps.values() for step in steps if step.shape.kind == "decode"
    ]
    return float(np.percentile(times, 10)) / NS_PER_MS if times else None
