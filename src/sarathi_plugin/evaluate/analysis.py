"""From stored runs to what may be said: figures by arm, paired comparisons, claims. Pure but for reading the runs."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sarathi_plugin.evaluate.metrics import CAPACITY, METRICS, Metric
from sarathi_plugin.evaluate.statistics import Estimate, mean_interval, ratio_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sarathi_plugin.evaluate.store import StoredRun

Cell = tuple[str, float]
"""Workload and load; the load of a capacity search is 0."""

SMALLEST = 1e-9
ROUNDING = 1 + 1e-6


@dataclass(frozen=True, slots=True)
class Claim:
    """One comparison. estimate: None without a pair. over: what the interval ranges over. better: the subject is."""

    metric: Metric
    subject: str
    other: str
    estimate: Estimate | None
    over: str

    @property
    def neutral(self) -> float:
        """What no difference looks like."""
        return 1.0 if self.metric.by_ratio else 0.0

    @property
    def shown(self) -> bool:
        """Whether the data carry a difference."""
        return self.estimate is not None and self.estimate.excludes(self.neutral)

    @property
    def better(self) -> bool:
        """Whether the subject comes out better, shown or not."""
        return self.estimate is not None and (self.estimate.value > self.neutral) == self.metric.higher

    def text(self) -> str:
        """What may be said, with the amount, in a cell of a table."""
        if self.estimate is None:
            return "-"
        verdict = ("better" if self.better else "worse") if self.shown else "no difference shown"
        return f"{verdict}: {self.amount()}"

    def amount(self) -> str:
        """The difference with its interval."""
        if self.estimate is None:
            return "no valid pair of runs"
        found = self.estimate
        low, high = (self._text(bound).removesuffix(" points") for bound in (found.low, found.high))
        within = (
            f"95 % interval {low} to {high}, {found.n} {self.over}"
            if found.n > 1
            else f"one {self.over[:-1]} only"
        )
        return f"{self._text(found.value)} ({within})"

    def _text(self, value: float) -> str:
        if math.isinf(value):
            return "unbounded"
        if self.metric.by_ratio:
            return f"x{value:.3g}"
        return f"{100 * value:+.1f} points" if self.metric.kind == "share" else f"{value:+.3f}"

    def sentence(self, where: str = "") -> str:
        """The claim in one sentence; a difference that the data do not carry is not claimed."""
        at = f" {where}" if where else ""
        if self.estimate is None:
            return f"No answer{at}: there is no valid pair of runs of {self.subject} and {self.other}."
        if not self.shown:
            return (
                f"No difference shown between {self.subject} and {self.other} in {self.metric.title}{at}: "
                f"{self.amount()}."
            )
        verdict = "better" if self.better else "worse"
        return f"{self.subject} is {verdict} than {self.other} in {self.metric.title}{at}: {self.amount()}."


class Results:
    """All runs of an experiment. arms: in their order; requests: judged requests of a run, by workload."""

    def __init__(
        self,
        runs: Sequence[StoredRun],
        arms: Sequence[str],
        requests: dict[str, int],
        resolution: float = 0.0,
    ) -> None:
        self.runs = list(runs)
        self.arms = list(arms)
        self.resolution = resolution
        self._requests = requests
        self._valid = [run for run in runs if run.valid]

    @property
    def invalid(self) -> list[StoredRun]:
        """Runs that must not be used."""
        return [run for run in self.runs if not run.valid]

    def cells(self, metric: Metric | None = None) -> list[Cell]:
        """Workloads and loads that were run; for capacity, those of its searches."""
        wanted = "capacity" if metric is not None and metric.name == CAPACITY else "run"
        found = {(run.unit.workload, run.unit.load) for run in self.runs if run.unit.kind == wanted}
        return sorted(found)

    def of(self, arm: str, cell: Cell) -> list[StoredRun]:
        """Valid runs of an arm in a cell."""
        return [
            run for run in self._valid if run.unit.arm == arm and (run.unit.workload, run.unit.load) == cell
        ]

    def values(self, metric: Metric, arm: str, cell: Cell) -> dict[tuple[int, int], float]:
        """The figure of every valid run by seed and repeat, as far as it has one."""
        found = {}
        for run in self.of(arm, cell):
            value = run.figure(metric, self._requests[run.unit.workload])
            if value is not None:
                found[run.unit.seed, run.unit.repeat] = float(value)
        return found

    @property
    def over(self) -> str:
        """What intervals range over: the seeds, or the repeats where there is one seed."""
        return "seeds" if len({run.unit.seed for run in self.runs}) > 1 else "repeats"

    def mean(self, metric: Metric, arm: str, cell: Cell) -> Estimate | None:
        """Mean figure of an arm with its interval over blocks; it ends at 0, of a share at 1."""
        blocks: dict[int, list[float]] = {}
        for (seed, repeat), value in self.values(metric, arm, cell).items():
            blocks.setdefault(seed if self.over == "seeds" else repeat, []).append(value)
        found = mean_interval([statistics.fmean(values) for values in blocks.values()])
        if found is None or found.n == 1:
            return found
        return replace(
            found, low=max(0.0, found.low), high=found.high if metric.by_ratio else min(1.0, found.high)
        )

    def claim(self, metric: Metric, subject: str, other: str, cells: Iterable[Cell] | None = None) -> Claim:
        """Subject against other, paired: same traffic, same load; averaged within a block, interval over blocks."""
        chosen = list(self.cells(metric) if cells is None else cells)
        blocks: dict[int, list[float]] = {}
        for cell in chosen:
            ours, theirs = self.values(metric, subject, cell), self.values(metric, other, cell)
            for seed, repeat in sorted(ours.keys() & theirs.keys()):
                pair = _difference(metric, ours[seed, repeat], theirs[seed, repeat])
                blocks.setdefault(seed if self.over == "seeds" else repeat, []).append(pair)
        values = [statistics.fmean(pairs) for pairs in blocks.values()]
        estimate = (ratio_interval if metric.by_ratio else mean_interval)(
            values, floor=self._floor(metric, chosen)
        )
        return Claim(metric, subject, other, estimate, self.over)

    def _floor(self, metric: Metric, cells: Sequence[Cell]) -> float:
        """What a figure cannot tell apart: one request of a run, or where a bisection stops."""
        if metric.name == CAPACITY:
            return self.resolution
        if metric.kind == "share" and cells:
            return ROUNDING / min(self._requests[workload] for workload, _ in cells)
        return 0.0

    def fluid_curve(self, arm: str, workload: str) -> list[tuple[float, Estimate]]:
        """Share of fluid requests over the load."""
        found = []
        for cell in self.cells():
            mean = self.mean(METRICS["fluid_share"], arm, cell) if cell[0] == workload else None
            if mean is not None:
                found.append((cell[1], mean))
        return found


def _difference(metric: Metric, ours: float, theirs: float) -> float:
    if not metric.by_ratio:
        return ours - theirs
    return math.log(max(ours, SMALLEST) / max(theirs, SMALLEST))
