"""One simulation: a pure function of profile, engine, trace, targets and seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.simulate.book import Book, Entry
from sarathi_plugin.simulate.build import make_scheduler
from sarathi_plugin.simulate.clock import EPOCH_NS, VirtualClock
from sarathi_plugin.simulate.device import Device
from sarathi_plugin.simulate.failures import check_policy, check_tracking
from sarathi_plugin.simulate.forward import Coaster
from sarathi_plugin.simulate.loop import EngineLoop
from sarathi_plugin.simulate.requests import RequestFactory
from sarathi_plugin.simulate.routing import make_router
from sarathi_plugin.steptime.machine import ProfileModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.load.targets import Targets
    from sarathi_plugin.records import RequestTimeline, StepRecord
    from sarathi_plugin.simulate.disturbance import Disturbance
    from sarathi_plugin.simulate.spec import EngineSpec
    from sarathi_plugin.steptime.profile import StepTimeProfile
    from sarathi_plugin.workload.trace import Trace

LONGEST_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What is simulated. replicas: engines alike, each with the noise of a seed of its own.

    keep_steps: also return StepRecords (of policies of ours). forward: fast-forward where it is safe. longest_s:
    virtual time after the last arrival at which what is still open counts as timed out. disturbance: of every engine's
    machine; its moments count from the start of the trace.
    """

    profile: StepTimeProfile
    engine: EngineSpec
    trace: Trace
    targets: Targets
    seed: int = 0
    replicas: int = 1
    router: str = "least-outstanding"
    keep_steps: bool = False
    forward: bool = True
    longest_s: float = LONGEST_S
    disturbance: Disturbance | None = None


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What one engine did. idle_ns: without any request. stage_busy_ns: work on each pipeline stage, of span_ns."""

    steps: int
    coasted: int
    preemptions: int
    blocks: int
    idle_ns: int
    span_ns: int
    stage_busy_ns: tuple[int, ...]
    requests: int

    @property
    def stage_idle_shares(self) -> tuple[float, ...]:
        """Share of the time with requests in which a stage did nothing (pipeline bubbles and host time)."""
        loaded = self.span_ns - self.idle_ns
        return tuple(1 - busy / loaded if loaded else 0.0 for busy in self.stage_busy_ns)


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """Timelines in the order of the trace, steps by engine, and what each engine did. complete: not stopped early."""

    timelines: list[RequestTimeline]
    steps: list[list[StepRecord]]
    engines: list[EngineFigures]
    complete: bool = True


@dataclass
class StepCollector:
    """An observer that keeps every StepRecord."""

    records: list[StepRecord] = field(default_factory=list)

    @hookimpl
    def observe_step(self, record: StepRecord) -> None:
        """Keep it."""
        self.records.append(record)


@dataclass(slots=True)
class _Engine:
    loop: EngineLoop
    book: Book
    factory: RequestFactory
    coaster: Coaster
    collector: StepCollector
    blocks: int

    def outstanding(self, now_ns: int) -> int:
        """Requests sent here that have not ended by now (its clock may be ahead by one step)."""
        return sum(e.end_ns is None or e.end_ns > now_ns for e in self.book.entries.values())


def simulate(
    wanted: Simulation,
    *,
    watch: Callable[[Book, Entry | None, int], bool] | None = None,
    progress: Callable[[int], None] | None = None,
) -> SimulationResult:
    """Run it. Raises ConfigError for what cannot be served at all, and for a policy that failed at some step.

    watch(book, entry, now_ns): sees every request that ended and every turn (None); False stops the simulation.
    progress(n): n requests have arrived.
    """
    _check(wanted)
    engines = [_build(wanted, index) for index in range(wanted.replicas)]
    if watch is not None:
        for engine in engines:
            engine.loop.watch = partial(_look, watch, engine)
    complete = _drive(wanted, engines, progress)
    result = _result(engines, complete=complete)
    loops = [engine.loop for engine in engines]
    check_policy(wanted.engine.scheduler, loops, result.steps)
    check_tracking(loops)
    return result


def _look(watch: Callable[[Book, Entry | None, int], bool], engine: _Engine, entry: Entry | None) -> bool:
    return watch(engine.book, entry, engine.loop.clock.ns)


def _check(wanted: Simulation) -> None:
    if wanted.replicas < 1:
        raise ConfigError(f"A simulation needs at least one replica, not {wanted.replicas}.")
    if not wanted.trace.requests:
        raise ConfigError("The trace holds no request.")
    wanted.trace.checked(wanted.engine.model_length(wanted.profile))


def _build(wanted: Simulation, index: int) -> _Engine:
    spec, profile = wanted.engine, wanted.profile
    clock, collector = VirtualClock(), StepCollector()
    observers = {"sarathi-simulator": collector} if wanted.keep_steps else {}
    scheduler = make_scheduler(spec, profile, clock.as_clock(), observers)
    noise, drafts = np.random.SeedSequence([wanted.seed, index]).spawn(2)
    book = Book(wanted.targets, EPOCH_NS)
    loop = EngineLoop(
        scheduler,
        clock,
        Device(ProfileModel(profile), spec, np.random.default_rng(noise), wanted.disturbance),
        book,
        depth=scheduler.vllm_config.max_concurrent_batches,
        accepted=_acceptance(spec, np.random.default_rng(drafts)),
        frontend_ns=round(profile.frontend_s * NS_PER_S),
    )
    coaster = Coaster(loop)
    if wanted.forward and spec.speculation is None and spec.pipeline_parallel_size == 1:
        loop.coast = coaster
    caches = scheduler.vllm_config.cache_config.enable_prefix_caching
    factory = RequestFactory(spec.block_size if caches else 0, EPOCH_NS)
    blocks = scheduler.kv_cache_config.num_blocks
    return _Engine(loop, book, factory, coaster, collector, blocks)


def _acceptance(spec: EngineSpec, rng: np.random.Generator) -> Callable[[int], int]:
    """How many of so many drafted tokens are accepted: each with the same chance, until one is not."""
    if spec.speculation is None:
        return lambda drafted: drafted
    chance = spec.speculation.acceptance

    def accepted(drafted: int) -> int:
        refused = np.flatnonzero(rng.random(drafted) >= chance)
        return int(refused[0]) if len(refused) else drafted

    return accepted


def _drive(wanted: Simulation, engines: list[_Engine], progress: Callable[[int], None] | None) -> bool:
    router = make_router(wanted.router)
    for number, asked in enumerate(wanted.trace.requests):
        now = EPOCH_NS + asked.offset_ns
        chosen = 0
        if len(engines) > 1:
            if not all(engine.loop.advance(now) for engine in engines):
                return False
            chosen = router.choose(asked, [engine.outstanding(now) for engine in engines])
        engine = engines[chosen]
        if not engine.loop.advance(now):
            return False
        engine.loop.submit(engine.book.open(asked, number), engine.factory.make(asked, number))
        if progress is not None:
            progress(number + 1)
    end = EPOCH_NS + wanted.trace.requests[-1].offset_ns + round(wanted.longest_s * NS_PER_S)
    return all(engine.loop.advance(end) for engine in engines)


def _result(engines: list[_Engine], *, complete: bool) -> SimulationResult:
    found: list[tuple[int, RequestTimeline]] = []
    figures = []
    for engine in engines:
        loop, end = engine.loop, engine.loop.clock.ns
        loop.scheduler.shutdown()
        found += [(entry.number, engine.book.timeline(entry, end)) for entry in engine.book.entries.values()]
        figures.append(
            EngineFigures(
                loop.steps,
                engine.coaster.steps,
                loop.preemptions,
                engine.blocks,
                loop.idle_ns,
                end - EPOCH_NS,
                tuple(loop.device.busy_ns),
                len(engine.book.entries),
            )
        )
    timelines = [timeline for _, timeline in sorted(found, key=lambda pair: pair[0])]
    return SimulationResult(timelines, [engine.collector.records for engine in engines], figures, complete)
