"""Runs on real servers: all of them up together, one loaded at a time."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.demo.models import cache_folder, smollm2_model, tiny_model
from sarathi_plugin.evaluate import metrics
from sarathi_plugin.evaluate.arms import serve_flags, targets_of
from sarathi_plugin.evaluate.store import Store, judged, trace_of, writing
from sarathi_plugin.evaluate.validity import check
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.curve import served_model
from sarathi_plugin.load.dispatch import RunResult, run_open_loop
from sarathi_plugin.load.machine import kept_to
from sarathi_plugin.load.server import ServerError, ServerSpec, answers, serve, tail
from sarathi_plugin.telemetry.recording import Recording, read_recording
from sarathi_plugin.workload.synthetic import workload_of
from sarathi_plugin.yamlfile import dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sarathi_plugin.evaluate.arms import Arm
    from sarathi_plugin.evaluate.plan import Unit
    from sarathi_plugin.evaluate.spec import Experiment

WARM_UP_REQUESTS, WARM_UP_RATE, WARM_UP_SEED = 8, 2.0, 10**6
SETTLE_S = 4.0
"""Before a run: vLLM's CPU worker spins for about three seconds after its last step."""

FLUSH_S = 1.0
"""After a run: a recorder writes twice a second."""

SERVED = "evaluated"


@dataclass(frozen=True, slots=True)
class Reached:
    """A server that answers. recording: what it writes about itself, log: what it says; None when it does not."""

    url: str
    model: str
    recording: Path | None = None
    log: Path | None = None


@dataclass(slots=True)
class LiveRunner:
    """The servers of an experiment while they are up."""

    wanted: Experiment
    store: Store
    environment: str
    say: Callable[[str], None]
    servers: dict[str, Reached] = field(default_factory=dict)

    @contextlib.contextmanager
    def up(self, arms: Sequence[Arm]) -> Iterator[None]:
        """Start what these arms need, warm it up, stop it at the end. Raises ConfigError, ServerError."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(kept_to(self.wanted.live.client_cores))
            for arm in arms:
                if arm.url:
                    self.servers[arm.name] = Reached(arm.url, served_model(arm.url)[0])
            for arm in (one for one in arms if not one.url):
                self.say(f"starting {arm.name}")
                recording = self._recording(arm)
                server = stack.enter_context(serve(self._spec(arm, recording)))
                self.servers[arm.name] = Reached(server.url, server.name, recording, server.log)
            for arm in arms:
                self._warm_up(self.servers[arm.name])
            yield

    def run(self, unit: Unit) -> list[str]:
        """Load one server, store what came of it; returns why it is invalid, if it is.

        Raises ServerError, and stores nothing, when the server is gone after it: nobody could run it again.
        """
        server, case = self.servers[unit.arm], self.wanted.workload(unit.workload)
        trace = trace_of(case, unit.load, unit.seed)
        workload = workload_of(trace, unit.seed)
        time.sleep(SETTLE_S)
        began, cpu = time.monotonic(), time.process_time()
        result = run_open_loop(workload, self._client(server).send)
        took = time.monotonic() - began
        used = (time.process_time() - cpu) / took
        time.sleep(FLUSH_S)
        timelines = result.timelines
        validity = check(
            timelines,
            {r.request_id: (r.prompt_tokens, r.output_tokens) for r in trace.requests},
            client_cpu=used,
        )
        if validity.errors and not answers(server.url):
            raise ServerError(f"The server of {unit.arm} is gone.{tail(server.log) if server.log else ''}")
        seen = _window(server.recording, result)
        facts: dict[str, Any] = {
            "warm_up": case.warm_up,
            "environment": self.environment,
            "started_ns": result.start_ns,
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "validity": validity,
            "figures": metrics.figures(judged(timelines, case)),
        }
        self.store.write(unit, facts, timelines=timelines, steps=seen.steps, server=seen.timelines)
        return list(validity.reasons)

    def _client(self, server: Reached) -> StreamingClient:
        longest = self.wanted.live.request_timeout_s
        end = Endpoint(server.url, server.model, read_timeout_s=longest, total_timeout_s=longest)
        return StreamingClient(end, targets_of(self.wanted))

    def _warm_up(self, server: Reached) -> None:
        """First steps of a server are slow: they are nobody's."""
        trace = trace_of(self.wanted.workloads[0], WARM_UP_RATE, WARM_UP_SEED, WARM_UP_REQUESTS)
        run_open_loop(workload_of(trace, WARM_UP_SEED), self._client(server).send)

    def _recording(self, arm: Arm) -> Path | None:
        if arm.stock:
            return None
        return (self.store.out / "servers" / f"{arm.name}-{time.time_ns()}.jsonl.gz").resolve()

    def _spec(self, arm: Arm, recording: Path | None) -> ServerSpec:
        live, folder = self.wanted.live, self.store.out / "servers"
        model, flags = _model(live.model)
        more: list[str] = []
        with writing(folder):
            folder.mkdir(exist_ok=True)
            if not arm.stock:
                config = folder / f"{arm.name}.yaml"
                config.write_text(dump(arm.engine.sarathi, sort_keys=True), encoding="utf-8")
                more = ["--scheduler", arm.engine.scheduler, "--sarathi-config", str(config.resolve())]
        if recording is not None:
            more += ["--sarathi-record", str(recording)]
        return ServerSpec(
            model=model,
            name=SERVED,
            log=folder / f"{arm.name}.log",
            args=(*flags, *live.flags, *serve_flags(arm.engine), *more, *arm.flags),
            env=live.env,
            start_timeout_s=live.start_timeout_s,
        )


def _model(name: str) -> tuple[str, tuple[str, ...]]:
    """(what to serve, the flags it needs)."""
    if name not in ("tiny", "smollm2"):
        return name, ()
    model = tiny_model(cache_folder()) if name == "tiny" else smollm2_model(cache_folder())
    return str(model.folder), model.flags


def _window(recording: Path | None, result: RunResult) -> Recording:
    """What a server recorded of one run; nothing without a recording."""
    found = Recording()
    if recording is None or not recording.is_file():
        return found
    whole = read_recording(recording)
    end = max(t.end_ns for t in result.timelines) + NS_PER_S
    found.steps = [s for s in whole.steps if result.start_ns <= s.start_ns <= end]
    found.timelines = [t for t in whole.timelines if result.start_ns <= t.arrival_ns <= end]
    return found
