"""``sarathi evaluate``: plan, tune, run what is missing, report."""

from __future__ import annotations

import re
import signal
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sarathi_plugin.config import ConfigError
from sarathi_plugin.evaluate import arms as arming
from sarathi_plugin.evaluate import knobs, plan, provenance
from sarathi_plugin.evaluate.spec import Experiment, load_experiment
from sarathi_plugin.evaluate.store import RESOLVED, TUNING, Store, read_tuning, trace_of, write_json, writing
from sarathi_plugin.steptime.profile import read_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from sarathi_plugin.evaluate.arms import Arm
    from sarathi_plugin.evaluate.plan import Unit
    from sarathi_plugin.evaluate.spec import ArmSpec

    Say = Callable[[str], None]


def evaluate(
    path: Path, out: Path | None, *, plan_only: bool, simulated: bool, workers: int, say: Say
) -> None:
    """Run an experiment, or go on with it. Raises ConfigError, ServerError."""
    wanted = load_experiment(path, **({"mode": "simulated"} if simulated else {}))
    arms = checked(wanted)
    store = Store(out or Path("sarathi-evaluation") / slug(f"{wanted.name}-{wanted.mode}"))
    units = plan.units_of(wanted, [arm.name for arm in arms])
    tuned = read_tuning(store.out, wanted)
    show_plan(wanted, arms, units, store, tuned, workers, say)
    if plan_only:
        return
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with store.opened(wanted.model_dump(mode="json")):
            work(wanted, store, units, workers, say)
    except (KeyboardInterrupt, SystemExit):
        done = sum(map(store.has, units))
        say(
            f"Stopped: {done} of {len(units)} runs are kept in {store.out}; the same command goes on from there."
        )
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def checked(wanted: Experiment) -> list[Arm]:
    """The arms before tuning, after looking at everything that can be wrong. Raises ConfigError."""
    arming.targets_of(wanted)
    for spec in wanted.arms:
        if spec.tune:
            check_knobs(wanted, spec)
    found = arming.resolve(wanted, {})
    if wanted.mode == "live":
        arming.servable(found, wanted.live.flags)
    length = min(arm.engine.model_length(read_profile(arm.profile)) for arm in found)
    for case in wanted.workloads:
        trace = trace_of(case, case.loads[0], wanted.seeds[0]).checked(length)
        if unknown := {r.slo_class for r in trace.requests} - {"", *wanted.classes}:
            raise ConfigError(
                f"Workload {case.name!r} asks for the SLO class {min(unknown)!r}: define it under classes."
            )
    return found


def check_knobs(wanted: Experiment, spec: ArmSpec) -> None:
    """Raise ConfigError for a knob that does not exist, or a value that its setting does not take."""
    for name, knob in knobs.knobs_of(spec).items():
        for value in knobs.probes(knob):
            try:
                arming.arm_of(wanted, spec, {name: value})
            except ConfigError as error:
                raise ConfigError(f"Arm {spec.name!r}, knobs: {name}={value}: {error}") from error


def show_plan(
    wanted: Experiment,
    arms: Sequence[Arm],
    units: Sequence[Unit],
    store: Store,
    tuned: dict[str, knobs.Tuning],
    workers: int,
    say: Say,
) -> None:
    """Print what is going to happen and how long it takes. Raises ConfigError when that is over the budget."""
    left = [unit for unit in units if not store.has(unit)]
    for line in plan.describe(wanted, arms, units, left):
        say(line)
    to_tune = [arm.name for arm in wanted.arms if arm.tune and arm.name not in tuned]
    tuning = plan.tuning_s(wanted, len(to_tune), workers)
    running = plan.expected_s(wanted, left, workers)
    if to_tune:
        say(f"tuning {', '.join(to_tune)}: {wanted.tune.trials if wanted.tune else 0} trials each, simulated")
    say(
        f"expected: {plan.minutes(tuning)} of tuning, {plan.minutes(running)} of runs; results in {store.out}"
    )
    if wanted.budget_minutes is not None and tuning + running > 60 * wanted.budget_minutes:
        raise ConfigError(
            f"This is expected to take {plan.minutes(tuning + running)}, more than budget_minutes: "
            f"{wanted.budget_minutes:g}; ask for fewer seeds, repeats, loads or requests, or raise it."
        )


def work(wanted: Experiment, store: Store, units: Sequence[Unit], workers: int, say: Say) -> None:
    """Tune, run what is missing, report."""
    from sarathi_plugin.evaluate import report  # before the first run: what is missing is missed now

    tuned = tune_all(wanted, store, workers, say)
    arms = arming.resolve(wanted, {n: (dict(t.best.knobs), len(t.trials)) for n, t in tuned.items()})
    environment = provenance.environment()
    key = provenance.digest(environment)
    with writing(store.out):
        write_json(store.out / RESOLVED, {"arms": [arm.facts() for arm in arms]})
        write_json(store.out / f"environment-{key}.json", environment)
    left = [unit for unit in units if not store.has(unit)]
    progress = Progress(len(units), len(units) - len(left), plan.expected_s(wanted, left, workers), say)
    if left and wanted.mode == "simulated":
        _simulate(wanted, store, arms, left, workers, key, progress)
    elif left:
        _serve(wanted, store, arms, left, key, progress)
    answer = report.write(store.out)
    say(answer)
    say(f"report: {store.out / 'report.html'} and {store.out / 'report.md'}")


PRIOR = 5
"""So many runs the plan counts for when the time left is told."""


class Progress:
    """Tells after each run how far it is and how long it may still take, by what the runs so far took."""

    def __init__(self, total: int, done: int, expected_s: float, say: Say) -> None:
        self.say = say
        self._total, self._done, self._first = total, done, done
        self._expected = expected_s / max(1, total - done)
        self._began = time.monotonic()

    def finished(self, unit: Unit, reasons: Sequence[str]) -> None:
        """One run is stored."""
        self._done += 1
        # The first runs pay for imports and starts: until there are many, the plan has a say.
        n = self._done - self._first
        each = (time.monotonic() - self._began + PRIOR * self._expected) / (n + PRIOR)
        left = plan.minutes(each * (self._total - self._done))
        verdict = f"INVALID: {'; '.join(reasons)}" if reasons else "ok"
        self.say(f"{self._done}/{self._total}, about {left} left: {unit.name} {verdict}")


def _simulate(
    wanted: Experiment,
    store: Store,
    arms: Sequence[Arm],
    left: Sequence[Unit],
    workers: int,
    environment: str,
    progress: Progress,
) -> None:
    from sarathi_plugin.evaluate.simulated import Job
    from sarathi_plugin.evaluate.simulated import work as run
    from sarathi_plugin.simulate.sweep import sweep

    by_name = {arm.name: arm for arm in arms}
    jobs = [Job(unit, by_name[unit.arm], wanted, store, environment) for unit in left]
    for job, reasons in sweep(run, jobs, workers=workers):
        progress.finished(job.unit, reasons)


def _serve(
    wanted: Experiment,
    store: Store,
    arms: Sequence[Arm],
    left: Sequence[Unit],
    environment: str,
    progress: Progress,
) -> None:
    from sarathi_plugin.evaluate.live import LiveRunner

    needed = {unit.arm for unit in left}
    runner = LiveRunner(wanted, store, environment, progress.say)
    with runner.up([arm for arm in arms if arm.name in needed]):
        for unit in left:
            progress.finished(unit, runner.run(unit))


def tune_all(wanted: Experiment, store: Store, workers: int, say: Say) -> dict[str, knobs.Tuning]:
    """Tune every arm that asks for it and is not tuned yet; kept on disk. Raises ConfigError."""
    found = read_tuning(store.out, wanted)
    left = [arm.name for arm in wanted.arms if arm.tune and arm.name not in found]
    if not left:
        return found
    from sarathi_plugin.evaluate.tune import tune_in_child
    from sarathi_plugin.simulate.sweep import KILLED

    # Fresh processes: vLLM, torch and their threads must not stay in the one that times tokens.
    with ProcessPoolExecutor(min(workers, len(left)), mp_context=get_context("spawn")) as pool:
        try:
            waiting = {pool.submit(tune_in_child, wanted, name): name for name in left}
            for future in as_completed(waiting):
                tuning = future.result()
                found[tuning.arm] = tuning
                with writing(store.out / TUNING):
                    (store.out / TUNING).mkdir(exist_ok=True)
                    write_json(store.out / TUNING / f"{tuning.arm}.json", tuning.facts())
                say(f"tuned {tuning.arm} in {len(tuning.trials)} trials: {tuning.best.knobs or 'as written'}")
        except BrokenProcessPool as error:
            raise ConfigError(KILLED) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
    return found


def slug(text: str) -> str:
    """A folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80] or "experiment"


def _leave(signum: int, _frame: FrameType | None) -> NoReturn:
    """End by an exception, so that servers are stopped; more such signals must not disturb that."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + signum)
