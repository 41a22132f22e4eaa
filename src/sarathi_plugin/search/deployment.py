"""A deployment in the simulator: a machine, an engine, how many of them; and the traffic it is tried with."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sarathi_plugin import plugins
from sarathi_plugin.core import NS_PER_S, StepShape
from sarathi_plugin.load.curve import write_curve
from sarathi_plugin.search.promise import Promise, check_classes, curve_of
from sarathi_plugin.simulate.run import Simulation
from sarathi_plugin.simulate.spec import STOCK, EngineSpec
from sarathi_plugin.simulate.targets import prefill_curve
from sarathi_plugin.steptime.machine import ProfileModel
from sarathi_plugin.steptime.profile import StepTimeProfile, read_profile

if TYPE_CHECKING:
    from sarathi_plugin.load.targets import Targets
    from sarathi_plugin.workload.spec import WorkloadSpec
    from sarathi_plugin.workload.trace import Trace

GUESS_BATCH, GUESS_CHUNK, GUESS_REQUESTS = 32, 1024, 200

_COMPUTED: dict[str, tempfile.TemporaryDirectory[str]] = {}
"""Curves of profiles that come without one, by digest: the scheduler takes a curve by its path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """profile: by name or path. engine: settings of its own win over those of the promise, which judges all alike."""

    profile: str
    engine: EngineSpec
    promise: Promise
    replicas: int = 1
    router: str = "least-outstanding"

    @property
    def machine(self) -> StepTimeProfile:
        """The profile itself. Raises ConfigError."""
        return read_profile(self.profile)

    @property
    def devices(self) -> int:
        """How many devices all replicas take."""
        return self.machine.tensor_parallel * self.engine.pipeline_parallel_size * self.replicas

    def full_engine(self) -> EngineSpec:
        """The engine with the promise among its settings; a stock one has none."""
        if self.engine.scheduler == STOCK:
            return self.engine
        settings = {**self.promise.settings(_curve(self.machine)), **self.engine.sarathi}
        return self.engine.model_copy(update={"sarathi": settings})

    def targets(self) -> Targets:
        """What its requests are judged by: the promise, on the curve of the machine where it names none."""
        return self.promise.targets(_curve(self.machine))

    def simulation(self, trace: Trace, seed: int) -> Simulation:
        """One run. Raises ConfigError for what cannot be served."""
        targets = self.targets()
        check_classes(trace, targets)
        return Simulation(
            profile=self.machine,
            engine=self.full_engine(),
            trace=trace,
            targets=targets,
            seed=seed,
            replicas=self.replicas,
            router=self.router,
        )


def _curve(profile: StepTimeProfile) -> str:
    """A shipped curve's name, or the path of one computed now, which lasts as long as this process."""
    known = curve_of(profile)
    if known is not None:
        return known
    curve = prefill_curve(profile)
    digest = curve.build().digest
    if digest not in _COMPUTED:
        folder = tempfile.TemporaryDirectory(prefix="sarathi-curve-")
        write_curve(Path(folder.name) / "curve.json", curve)
        _COMPUTED[digest] = folder
    return str(Path(_COMPUTED[digest].name) / "curve.json")


@dataclass(frozen=True, slots=True)
class Traffic:
    """A workload at any rate; under one seed the same requests at every rate."""

    workload: WorkloadSpec
    requests: int | None

    def at(self, rate: float | None, seed: int) -> Trace:
        """The trace; rate None: its own. Raises ConfigError."""
        return self.workload.trace(rate, self.requests, seed)

    def lasting(self, rate: float, seconds: float) -> Traffic:
        """The same with at least so many seconds of requests at that rate."""
        least = round(rate * seconds)
        return replace(self, requests=max(self.requests or 0, least))


def first_guess(deployment: Deployment, traffic: Traffic) -> float:
    """Requests per second that keep the deployment half busy: where a search may start."""
    trace = (
        Traffic(traffic.workload, GUESS_REQUESTS).at(1.0, 0) if traffic.workload.kind else traffic.at(1.0, 0)
    )
    model, batch = ProfileModel(deployment.machine), GUESS_BATCH
    prompt = sum(r.prompt_tokens for r in trace.requests) / len(trace.requests)
    output = sum(r.output_tokens for r in trace.requests) / len(trace.requests)
    context = round(prompt + output / 2)
    decode = model.predict_ns(StepShape(batch, batch, batch * context)) / batch * output
    chunk = StepShape(0, 0, 0, GUESS_CHUNK, round(prompt / 2) * GUESS_CHUNK)
    prefill = model.predict_ns(chunk) * max(1.0, prompt / GUESS_CHUNK)
    return 0.5 * NS_PER_S / (decode + prefill) * deployment.replicas


def check_policy(engine: EngineSpec) -> None:
    """Raise ConfigError when nobody offers the engine's policy, or it does not take its settings."""
    if engine.scheduler == STOCK:
        return
    settings = engine.settings()
    plugins.make_policy(settings, plugins.manager_for(settings, (STOCK,)))
