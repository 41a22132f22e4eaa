"""Workload files: which traffic, how much of it, how fast."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from sarathi_plugin.config import ConfigError, Strict, explain, load_yaml
from sarathi_plugin.workload.arrivals import ArrivalProcess, Streams
from sarathi_plugin.workload.kinds import KINDS, make_trace
from sarathi_plugin.workload.readers import read_trace
from sarathi_plugin.workload.trace import Trace, with_arrivals

DEFAULT_REQUESTS = 1000
PACKAGE = Path(__file__).resolve().parents[1]


class Recorded(Strict):
    """Requests arrive as the trace recorded them, at its own rate or scaled to another."""

    process: Literal["trace"] = "trace"


class WorkloadSpec(Strict):
    """A workload as a person writes it down: a kind of traffic or a trace, and what to do with it."""

    kind: str | None = Field(default=None, description="Kind of traffic to draw, by name.")
    trace_file: str | None = Field(
        default=None, alias="trace", description="Trace file to use instead; relative to the workload file."
    )
    rate: float | None = Field(default=None, gt=0, description="Mean arrivals, requests per second.")
    requests: int | None = Field(
        default=None, ge=1, description=f"How many; {DEFAULT_REQUESTS} of a kind, all of a trace when unset."
    )
    seed: int = Field(default=0, ge=0, description="What is drawn: same seed, same requests.")
    arrivals: Annotated[ArrivalProcess | Recorded, Field(discriminator="process")] | None = Field(
        default=None,
        description="Process of the arrivals; unset: the kind's own, the trace's own, or Poisson if it has none.",
    )
    prompt_scale: float = Field(default=1.0, gt=0, description="Multiplies prompt lengths.")
    output_scale: float = Field(default=1.0, gt=0, description="Multiplies output lengths.")
    slo_class: str | None = Field(default=None, description="Class of every request, instead of its own.")
    speed: float = Field(default=1.0, gt=0, description="Replays recorded arrivals so many times as fast.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind is None) == (self.trace_file is None):
            raise ValueError("give either kind or trace")
        if self.kind is not None and self.kind not in KINDS:
            raise ValueError(f"no kind of workload {self.kind!r}: use one of {', '.join(KINDS)}")
        if isinstance(self.arrivals, Recorded) and self.kind is not None:
            raise ValueError("arrivals of process trace need a trace")
        if self.speed != 1 and (self.kind is not None or self._process is not None):
            raise ValueError("speed replays the arrivals of a trace: use rate with other arrivals")
        if self.speed != 1 and self.rate is not None:
            raise ValueError("give either rate or speed")
        return self

    def trace(self, rate: float | None = None, requests: int | None = None, seed: int | None = None) -> Trace:
        """The workload, with these in place of what the file says.

        Rows of a trace without its own arrivals are picked by the seed, without repeats; a trace with shared content
        keeps its order. Raises ConfigError for a missing rate, too few rows, or a file that cannot be read.
        """
        rate = self.rate if rate is None else rate
        requests = self.requests if requests is None else requests
        seed = self.seed if seed is None else seed
        if self.kind is not None:
            trace = self._drawn(self.kind, rate, DEFAULT_REQUESTS if requests is None else requests, seed)
        else:
            trace = self._recorded(rate, requests) or self._picked(rate, requests, seed)
        if (self.prompt_scale, self.output_scale) != (1, 1):
            trace = trace.resized(self.prompt_scale, self.output_scale)
        return trace if self.slo_class is None else trace.with_class(self.slo_class)

    @property
    def varies(self) -> bool:
        """Whether another seed makes other traffic: not of a trace that is replayed at its own arrivals.

        Raises ConfigError for a trace that cannot be read.
        """
        return self.kind is not None or self._recorded(None, None) is None

    @property
    def _process(self) -> ArrivalProcess | None:
        return None if isinstance(self.arrivals, Recorded) else self.arrivals

    def _drawn(self, kind: str, rate: float | None, requests: int, seed: int) -> Trace:
        if rate is None:
            raise ConfigError(f"Workload {kind!r} needs a rate in requests a second: give one.")
        return make_trace(kind, rate=rate, count=requests, seed=seed, arrivals=self._process)

    def _recorded(self, rate: float | None, requests: int | None) -> Trace | None:
        """The trace at its own arrivals; None when it has none, or others are asked for."""
        if self._process is not None:
            return None
        trace = read_trace(str(self.trace_file), limit=requests)
        _check_rows(trace, requests)
        if trace.span_ns == 0 and len(trace.requests) > 1:
            if self.arrivals is None:
                return None
            raise ConfigError(
                f"{self.trace_file} has no arrival times to replay: use another arrival process."
            )
        if rate is None:
            return trace if self.speed == 1 else trace.scaled(self.speed)
        return trace.scaled(rate / trace.rate) if trace.span_ns else trace

    def _picked(self, rate: float | None, requests: int | None, seed: int) -> Trace:
        """Rows of the trace at the arrivals of a process."""
        if rate is None:
            raise ConfigError(
                f"{self.trace_file} needs a rate in requests a second for its arrivals: give one."
            )
        trace = read_trace(str(self.trace_file))
        _check_rows(trace, requests)
        rows = list(range(len(trace.requests)))
        if not any(request.segments for request in trace.requests):
            rows = Streams.of(seed).labels.permutation(len(rows)).tolist()
        rows = rows[:requests]
        together = tuple(replace(trace.requests[row], offset_ns=0) for row in rows)
        picked = Trace(trace.name, together, tuple(trace.lines[row] for row in rows))
        return with_arrivals(picked, rate, seed, self._process)


def shipped() -> dict[str, Path]:
    """The workload files that come along, by name: inside the package, or at the top of a checkout."""
    for root in (PACKAGE / "data", PACKAGE.parents[1]):
        found = sorted((root / "loadtests" / "workloads").glob("*.yaml"))
        if found:
            return {path.stem: path for path in found}
    return {}


def load_workload(name_or_path: str | Path) -> WorkloadSpec:
    """A workload that comes along, by name, or one from a YAML file. Raises ConfigError with one clear sentence."""
    name = str(name_or_path)
    files = shipped()
    if name in KINDS and name not in files:
        return WorkloadSpec(kind=name)
    name = str(files.get(name, name))
    if not Path(name).is_file():
        raise ConfigError(
            f"No workload {name!r}: give the path of a workload file or one of {', '.join(KINDS)}."
        )
    data = load_yaml(name)
    if isinstance(data.get("trace"), str):
        data["trace"] = str(Path(name).parent / data["trace"])
    try:
        return WorkloadSpec.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, name, WorkloadSpec)) from error


def _check_rows(trace: Trace, requests: int | None) -> None:
    if requests is not None and len(trace.requests) < requests:
        raise ConfigError(
            f"Trace {trace.name!r} holds {len(trace.requests)} requests, fewer than the {requests} asked."
        )
