"""The units of work of the bench: each a pure function of its job, kept in a file of its own, so runs resume."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import sarathi_plugin
from sarathi_plugin.core import NS_PER_S, StepShape
from sarathi_plugin.search.capacity import find_capacity
from sarathi_plugin.search.profiled import rate_bound
from sarathi_plugin.search.simulated import failed_share, judge_simulation
from sarathi_plugin.simulate.run import Simulation
from sarathi_plugin.steptime.machine import ProfileModel

if TYPE_CHECKING:
    from policies.arms import Arm
    from policies.cells import Cell

COARSE_REQUESTS, COARSE_RESOLUTION, COARSE_STEP = 250, 0.1, 1.6
FINE_RESOLUTION, FINE_STEP = 0.02, 1.06
STOCK_CODE = (
    "core.py",
    "deadlines.py",
    "config.py",
    "data",
    "load/summary.py",
    "load/targets.py",
    "search",
    "simulate",
    "steptime/machine.py",
    "steptime/profile.py",
    "workload",
)
"""What results of stock vLLM and bounds depend on: when any of it changes, they are computed anew."""

LEARNED = ("gapcount.py", "tolerance.py", "waits.py")
CODE = (*STOCK_CODE, "engine", "plugins.py", "policies", "steptime", "telemetry", *LEARNED)
"""The same of arms that are ours."""


@dataclass(frozen=True, slots=True)
class Job:
    """kind: coarse or fine capacity, load of 5 % failures, share that fails at ``rate``, or the bound.

    The bound is that of the cell and its traffic; the arm says only which engine loop it is for.
    """

    kind: Literal["coarse", "fine", "overload", "failed", "bound"]
    cell: Cell
    arm: Arm
    seed: int
    requests: int
    rate: float
    """Where a search starts, or the rate itself."""

    @property
    def file(self) -> str:
        """Its result's file name."""
        parts = (
            self.kind,
            self.cell.name.replace("/", "_"),
            self.arm.name,
            str(self.seed),
            str(self.requests),
        )
        at = f"-{self.rate:.4f}" if self.kind == "failed" else ""
        return "-".join(parts) + at + ".json"


def run(job: Job) -> dict[str, Any]:
    """Its result as plain data."""
    cell, arm = job.cell, job.arm
    wanted = Simulation(
        profile=cell.profile,
        engine=arm.engine(cell),
        trace=cell.trace(job.rate, job.seed, job.requests, priority=arm.priority),
        targets=cell.targets(),
        seed=job.seed,
    )
    begin = time.process_time()
    if job.kind == "bound":
        found: dict[str, Any] = {
            "bound": rate_bound(
                wanted.trace, wanted.targets, wanted.profile, overlapped=wanted.engine.async_scheduling
            )
        }
    elif job.kind == "failed":
        found = {"failed": failed_share(wanted)}
    else:
        share = 0.95 if job.kind == "overload" else 0.99
        judge = judge_simulation(
            wanted,
            lambda rate: cell.trace(rate, job.seed, job.requests, priority=arm.priority),
            share=share,
        )
        coarse = job.kind == "coarse"
        capacity = find_capacity(
            judge,
            start=job.rate,
            lowest=job.rate / 64,
            highest=job.rate * 64,
            resolution=COARSE_RESOLUTION if coarse else FINE_RESOLUTION,
            step=COARSE_STEP if coarse else FINE_STEP,
        )
        found = {"capacity": capacity.rate, "limit": capacity.limit, "runs": len(capacity.tried)}
    return {**found, "cpu_s": round(time.process_time() - begin, 1)}


def first_guess(cell: Cell) -> float:
    """Requests per second that keep the machine half busy: where a search may start."""
    trace = cell.trace(1.0, 0, 200)
    model, batch = ProfileModel(cell.profile), 32
    mean = lambda values: sum(values) / len(trace.requests)  # noqa: E731
    prompt = mean(r.prompt_tokens for r in trace.requests)
    output = mean(r.output_tokens for r in trace.requests)
    context = round(prompt + output / 2)
    decode = model.predict_ns(StepShape(batch, batch, batch * context)) / batch * output
    chunks = max(1.0, prompt / 1024)
    prefill = model.predict_ns(StepShape(0, 0, 0, 1024, round(prompt / 2) * 1024)) * chunks
    return 0.5 * NS_PER_S / (decode + prefill)


class Store:
    """Results on disk, by job; those of other code do not count."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, job: Job) -> dict[str, Any] | None:
        """A result from before."""
        path = self._folder / job.file
        if not path.is_file():
            return None
        data: dict[str, Any] = json.loads(path.read_text())
        return data["result"] if data["code"] == digest_of(job) and data["job"] == describe(job) else None

    def put(self, job: Job, result: dict[str, Any]) -> None:
        """Keep a result."""
        path = self._folder / job.file
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"job": describe(job), "code": digest_of(job), "result": result}))
        part.replace(path)


def describe(job: Job) -> dict[str, Any]:
    """A job as it comes back from JSON. A search's start is no part of it: it hardly changes what is found."""
    data = asdict(job)
    if job.kind != "failed":
        del data["rate"]
    found: dict[str, Any] = json.loads(json.dumps(data))
    return found


def digest_of(job: Job) -> str:
    """Of the code that a job's result depends on."""
    return code_digest(STOCK_CODE if job.arm.fixed or job.kind == "bound" else CODE)


@cache
def code_digest(names: tuple[str, ...] = CODE) -> str:
    """Twelve hex digits that change with anything the results depend on."""
    root = Path(sarathi_plugin.__file__).parent
    digest = hashlib.sha256()
    for name in names:
        path = root / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in (".py", ".json"):
                digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
