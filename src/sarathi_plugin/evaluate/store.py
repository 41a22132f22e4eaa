"""Results on disk: a folder a run, whole or not there at all, so that an experiment resumes where it was stopped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

from sarathi_plugin import outputs
from sarathi_plugin.config import ConfigError
from sarathi_plugin.evaluate.knobs import Tuning
from sarathi_plugin.evaluate.metrics import CAPACITY, OF_SERVER
from sarathi_plugin.evaluate.shapes import ExperimentFile, RunFile, TuningFile, read_shape
from sarathi_plugin.telemetry import parquet
from sarathi_plugin.workload.spec import load_workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sarathi_plugin.evaluate.metrics import Metric
    from sarathi_plugin.evaluate.plan import Unit
    from sarathi_plugin.evaluate.spec import Experiment, WorkloadCase
    from sarathi_plugin.records import RequestTimeline, StepRecord
    from sarathi_plugin.workload.trace import Trace

RUNS, TUNING, PART, BROKEN = "runs", "tuning", ".part-", ".broken-"
EXPERIMENT, RESOLVED, RUN = "experiment.json", "resolved.json", "run.json"
TIMELINES, STEPS, SERVER = "timelines.parquet", "steps.parquet", "server-timelines.parquet"


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One finished run. facts: its ``run.json``; timelines and steps are read when asked for."""

    unit: Unit
    facts: Mapping[str, Any]
    folder: Path

    @property
    def reasons(self) -> list[str]:
        """Why it must not be used; empty when it may."""
        return list(self.facts.get("validity", {}).get("reasons", ()))

    @property
    def valid(self) -> bool:
        """Whether it may be used."""
        return not self.reasons

    def timelines(self, *, skip: int = 0) -> list[RequestTimeline]:
        """The client's view, without the first ``skip`` requests. Raises ConfigError."""
        return parquet.read_timelines(self.folder / TIMELINES)[skip:]

    def server_timelines(self, judged: int | None = None) -> list[RequestTimeline] | None:
        """The server's own view of a live run by arrival, None where there is none. Raises ConfigError.

        judged: of the last so many requests; of all when None.
        """
        path = self.folder / SERVER
        if not path.is_file():
            return None
        # A server records requests as they end.
        found = sorted(parquet.read_timelines(path), key=lambda t: t.arrival_ns)
        return found if judged is None else found[max(0, len(found) - judged) :]

    def figure(self, metric: Metric, judged: int) -> float | None:
        """A figure of a run of so many judged requests, None where nobody knows it.

        What no client sees, the scheduling delay, is the server's. Raises ConfigError.
        """
        of_capacity = metric.name == CAPACITY
        source = self.facts["capacity" if of_capacity else "figures"]
        value: float | None = source.get("rate" if of_capacity else metric.name)
        if value is None and metric.name in OF_SERVER:
            return metric.of(self.server_timelines(judged) or [])
        return value

    def steps(self) -> list[StepRecord] | None:
        """Every engine step, None where nobody recorded them. Raises ConfigError."""
        path = self.folder / STEPS
        return parquet.read_steps(path)[0] if path.is_file() else None


def trace_of(case: WorkloadCase, load: float, seed: int, count: int | None = None) -> Trace:
    """The requests of a run: those of its warm-up and the judged ones, or ``count``. Raises ConfigError."""
    asked = case.warm_up + case.requests if count is None else count
    trace = load_workload(case.source).trace(load, asked, seed)
    if (case.prompt_scale, case.output_scale) != (1, 1):
        trace = trace.resized(case.prompt_scale, case.output_scale)
    return trace


def replayed(wanted: Experiment) -> list[str]:
    """Names of the workloads that are the same requests under every seed. Raises ConfigError."""
    return [case.name for case in wanted.workloads if not load_workload(case.source).varies]


def judged(timelines: Sequence[RequestTimeline], case: WorkloadCase) -> list[RequestTimeline]:
    """Without the warm-up."""
    return list(timelines[case.warm_up :])


def writing(where: Path) -> contextlib.AbstractContextManager[None]:
    """Errors of the disk as one sentence."""
    advice = "make room or choose another --out, then run the same command again: finished runs are kept"
    return outputs.writing(where, advice)


def write_json(path: Path, data: Any) -> None:
    """Whole or not at all. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(json.dumps(data, indent=1, default=_plain) + "\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _plain(thing: Any) -> Any:
    if is_dataclass(thing) and not isinstance(thing, type):
        return asdict(thing)
    raise TypeError(f"{type(thing).__name__} does not go into a file")


class Store:
    """The folder of one experiment."""

    def __init__(self, out: Path) -> None:
        self.out = out

    @contextlib.contextmanager
    def opened(self, experiment: Mapping[str, Any]) -> Iterator[None]:
        """Take the folder for this experiment alone, and clear what an interrupted run left half done.

        Raises ConfigError when it cannot be written, somebody is at it, or it holds another experiment.
        """
        with writing(self.out):
            (self.out / RUNS).mkdir(parents=True, exist_ok=True)
            lock = (self.out / ".lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    f"Another sarathi evaluate is at work in {self.out}: wait for it."
                ) from error
            self._claim(experiment)
            for left in (self.out / RUNS).glob(f"{PART}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def _claim(self, experiment: Mapping[str, Any]) -> None:
        path = self.out / EXPERIMENT
        plain = json.loads(json.dumps(experiment))
        if path.is_file():
            other, _ = read_shape(path, ExperimentFile, "an experiment")
            kept = [*(self.out / RUNS).glob("[!.]*"), *(self.out / TUNING).glob("[!.]*")]
            if other == plain:
                return
            if kept:
                differs = sorted(
                    key for key in plain.keys() | other.keys() if plain.get(key) != other.get(key)
                )
                raise ConfigError(
                    f"{self.out} holds another experiment (different: {', '.join(differs)}); choose another --out."
                )
        with writing(path):
            write_json(path, plain)

    def has(self, unit: Unit) -> bool:
        """Whether the unit is done."""
        return (self.out / RUNS / unit.name / RUN).is_file()

    def write(
        self,
        unit: Unit,
        facts: Mapping[str, Any],
        *,
        timelines: Sequence[RequestTimeline] | None = None,
        steps: Sequence[StepRecord] = (),
        server: Sequence[RequestTimeline] = (),
    ) -> None:
        """Keep a result: all of its files appear at once. Raises ConfigError when the disk does not take it."""
        part = self.out / RUNS / f"{PART}{os.getpid()}-{unit.name}"
        try:
            with writing(self.out):
                part.mkdir(parents=True, exist_ok=True)
                write_json(part / RUN, {"unit": unit.facts(), **facts})
                if timelines is not None:
                    parquet.write_timelines(part / TIMELINES, timelines)
                if steps:
                    parquet.write_steps(part / STEPS, [steps])
                if server:
                    parquet.write_timelines(part / SERVER, server)
                whole = self.out / RUNS / unit.name
                if whole.exists():  # without its run.json, or it would not have been run again
                    aside = whole.with_name(f"{BROKEN}{unit.name}")
                    shutil.rmtree(aside, ignore_errors=True)
                    whole.rename(aside)
                part.rename(whole)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def runs(self, units: Sequence[Unit]) -> list[StoredRun]:
        """Those of the units that are done. Raises ConfigError for a damaged one."""
        return [self.run(unit) for unit in units if self.has(unit)]

    def run(self, unit: Unit) -> StoredRun:
        """One finished run. Raises ConfigError."""
        return read_run(self.out / RUNS / unit.name)


def read_run(folder: Path) -> StoredRun:
    """A run from its folder. Raises ConfigError."""
    facts, checked = read_shape(folder / RUN, RunFile, "a run")
    return StoredRun(checked.unit, facts, folder)


def read_tuning(out: Path, wanted: Experiment) -> dict[str, Tuning]:
    """What has been tuned before, by arm. Raises ConfigError for a damaged file."""
    found = {}
    for arm in wanted.arms:
        path = out / TUNING / f"{arm.name}.json"
        if arm.tune and path.is_file():
            data, _ = read_shape(path, TuningFile, "a tuning")
            found[arm.name] = Tuning.of(data)
    return found
