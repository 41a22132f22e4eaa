"""Which runs an experiment has, in which order, and about how long they take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.evaluate.arms import Arm
    from sarathi_plugin.evaluate.spec import Experiment

TAIL_S = 8.0
"""After the last arrival, until the last answer has ended and its records are on disk."""

START_S = 45.0
"""Start and first requests of a server on a small machine."""

SIMULATED_SPEED = 60.0
"""Virtual seconds a second, of one process: of the fast model near its capacity."""

CAPACITY_RUNS = 8
"""Runs of a capacity search, many of them stopped early."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work whose result is kept: a run at a load, or a search for the capacity (load 0)."""

    kind: Literal["run", "capacity"]
    workload: str
    load: float
    seed: int
    repeat: int
    arm: str

    @property
    def name(self) -> str:
        """Its folder's name."""
        at = f"{self.load:g}" if self.kind == "run" else "capacity"
        return f"{self.workload}-{at}-s{self.seed}-r{self.repeat}-{self.arm}"

    def facts(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def units_of(wanted: Experiment, arms: Sequence[str]) -> list[Unit]:
    """All units, interleaved: arms take turns, and another one begins each time, so that drift hits all alike."""
    found: list[Unit] = []
    turn = 0
    for repeat in range(wanted.repeats):
        for seed in wanted.seeds:
            for case in wanted.workloads:
                cells: list[tuple[Literal["run", "capacity"], float]] = [("run", load) for load in case.loads]
                if wanted.capacity:
                    cells.append(("capacity", 0.0))
                for kind, load in cells:
                    found += [Unit(kind, case.name, load, seed, repeat, arm) for arm in rotated(arms, turn)]
                    turn += 1
    return found


def rotated(arms: Sequence[str], by: int) -> list[str]:
    """The arms, beginning with another one each time."""
    at = by % len(arms)
    return [*arms[at:], *arms[:at]]


def expected_s(wanted: Experiment, units: Sequence[Unit], workers: int) -> float:
    """About how long these units take, seconds."""
    total = 0.0
    for unit in units:
        case = wanted.workload(unit.workload)
        if unit.kind == "capacity" and wanted.capacity:
            total += CAPACITY_RUNS * wanted.capacity.requests / (min(case.loads) * SIMULATED_SPEED * workers)
            continue
        span = (case.requests + case.warm_up) / unit.load
        total += span + TAIL_S if wanted.mode == "live" else span / (SIMULATED_SPEED * workers)
    if wanted.mode == "live":
        total += START_S * len({unit.arm for unit in units})
    return total


def tuning_s(wanted: Experiment, arms: int, workers: int) -> float:
    """About how long tuning so many arms takes, seconds."""
    if wanted.tune is None:
        return 0.0
    share = wanted.tune.load_share
    virtual = sum(wanted.tune.requests / (share * load) for case in wanted.workloads for load in case.loads)
    each = wanted.tune.trials * len(wanted.tune.seeds) * virtual / SIMULATED_SPEED
    return each * -(-arms // workers) if arms else 0.0


def minutes(seconds: float) -> str:
    """As people say it."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def describe(
    wanted: Experiment, arms: Sequence[Arm], units: Sequence[Unit], left: Sequence[Unit]
) -> list[str]:
    """The plan in lines: arms, what each is, how many runs, in which order."""
    lines = [f"{wanted.name} ({wanted.mode}): {wanted.subject} against {wanted.baseline}, by {wanted.metric}"]
    for arm in arms:
        how = f"tuned in {arm.trials} trials: {arm.tuned}" if arm.trials else arm.role
        lines.append(f"  {arm.name}: {arm.url or arm.engine.scheduler} ({how})")
    for case in wanted.workloads:
        rates = ", ".join(f"{load:g}" for load in case.loads)
        lines.append(
            f"  {case.name}: {case.source} at {rates} requests/s, {case.requests} judged + {case.warm_up} before"
        )
    lines += [f"  {line}" for line in not_simulated(wanted)]
    lines.append(f"  seeds {', '.join(map(str, wanted.seeds))}, {wanted.repeats} repeats")
    lines.append(f"{len(units)} runs, {len(units) - len(left)} done")
    return lines


def not_simulated(wanted: Experiment) -> list[str]:
    """What is asked of the arms that the simulator does not know, in sentences."""
    if wanted.mode == "live":
        return []
    return [
        f"The flags of {arm.name} are not simulated: {' '.join(arm.flags)}."
        for arm in wanted.arms
        if arm.flags
    ]
