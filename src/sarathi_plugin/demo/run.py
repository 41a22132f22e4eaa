"""The demo from start to end: prepare, measure the machine, serve and load both arms, show what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import NS_PER_MS, SloClass
from sarathi_plugin.demo.arms import SLACK_STEPS, STOCK, TBT_STEPS, Arm, sarathi_arm, server_spec, slo_for
from sarathi_plugin.demo.scenario import Scenario, server_tokenizer
from sarathi_plugin.demo.texts import CLOSING_QUESTION
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.curve import curve_lengths, measure_curve, probe, write_curve
from sarathi_plugin.load.dispatch import RunResult, run_open_loop
from sarathi_plugin.load.machine import hardware
from sarathi_plugin.load.server import serve
from sarathi_plugin.load.summary import LoadSummary, summarise
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.load.timelines import write_timelines
from sarathi_plugin.workload.model import Message, ScheduledRequest

if TYPE_CHECKING:
    from pathlib import Path

    from sarathi_plugin.config import CurveFile
    from sarathi_plugin.demo.console import Screen
    from sarathi_plugin.demo.models import DemoModel
    from sarathi_plugin.load.server import RunningServer
    from sarathi_plugin.workload.model import Workload

CURVE_REPEATS = 2

MakeArm = Callable[[SloClass, "Path"], Arm]
"""Makes the second arm from the promise and the curve file."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured on the stock server before any load: lone decode step, promise, prefill curve."""

    decode_step_s: float
    slo: SloClass
    curve: CurveFile

    @property
    def targets(self) -> Targets:
        """What both arms are judged by."""
        return Targets(self.slo, self.curve.build())


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm's run under the load."""

    arm: Arm
    run: RunResult
    summary: LoadSummary


@dataclass(slots=True)
class Demo:
    """One demo: its parts, and what it has found so far.

    out: an existing folder for everything it writes. second: makes the arm that stock vLLM is compared with.
    """

    model: DemoModel
    scenario: Scenario
    out: Path
    seed: int
    screen: Screen
    second: MakeArm = sarathi_arm
    results: list[ArmResult] = field(default_factory=list)
    answer: str = ""
    machine: Machine | None = None
    workload: Workload | None = None

    def run(self) -> Machine:
        """Run both arms. Raises ServerError when a server fails; no process is left behind then either."""
        with self._serve(STOCK) as server:
            machine = self._measure(server)
            self._load(STOCK, server, machine)
        second = self.second(machine.slo, self.curve_path)
        with self._serve(second) as server:
            self._load(second, server, machine)
            if self.model.talks:
                self._ask(server, machine)
        return machine

    @property
    def curve_path(self) -> Path:
        """The curve file that server and client both read."""
        return self.out / "prefill-curve.json"

    @contextlib.contextmanager
    def _serve(self, arm: Arm) -> Iterator[RunningServer]:
        """``serve`` with words on the screen."""
        self.screen.stage(f"Starting {arm.title} with {self.model.title}")
        with serve(server_spec(arm, self.model, self.out)) as server:
            self.screen.say(f"{arm.title} is up after {server.started_in_s:.0f} s.")
            yield server
            self.screen.stage(f"Stopping {arm.title}")

    def _measure(self, server: RunningServer) -> Machine:
        """Lone decode step and prefill curve of the idle stock server."""
        self.screen.stage("Measuring the idle machine on stock vLLM")
        lone = probe(server.url, server.name, self.seed)
        lone.decode_gaps_s(8)
        step_s = float(np.median(lone.decode_gaps_s()))
        slo = slo_for(step_s)
        self.screen.say(
            f"One stream alone: a token every {step_s * 1e3:.1f} ms. So, for both arms alike: "
            f"D_d = {TBT_STEPS} x that = {slo.tbt_ns / NS_PER_MS:.0f} ms a token, TTFT slack = {SLACK_STEPS} x that = "
            f"{slo.ttft_slack_ns / NS_PER_MS:.0f} ms."
        )
        curve = measure_curve(
            lone,
            curve_lengths(self.scenario.document_tokens),
            repeats=CURVE_REPEATS,
            model=self.model.title,
            hardware=hardware(),
            note=lambda text: self.screen.stage(f"Measuring the prefill curve: {text}"),
        )
        write_curve(self.curve_path, curve)
        tokens, seconds = curve.points[-1]
        self.screen.say(f"A prompt of {tokens:,} tokens alone: first token after {seconds:.2f} s.")
        self.machine = Machine(step_s, slo, curve)
        return self.machine

    def _load(self, arm: Arm, server: RunningServer, machine: Machine) -> None:
        """Warm an arm up, load it, keep what came of it."""
        client = StreamingClient(Endpoint(server.url, server.name), machine.targets)
        tokenize = server_tokenizer(server.url, server.name)
        if self.workload is None:
            rng = np.random.default_rng(self.seed)
            self.workload = self.scenario.build(machine.curve.build(), machine.decode_step_s, tokenize, rng)
        self.screen.stage(f"Warming up {arm.title}")
        run_open_loop(self.scenario.warm_up(tokenize, np.random.default_rng(self.seed + 1)), client.send)
        with self.screen.load(arm.title, len(self.workload.requests)) as progress:
            run = run_open_loop(self.workload, client.send, progress=progress)
        write_timelines(self.out / f"{arm.name}.jsonl.gz", run.timelines)
        self.results.append(ArmResult(arm, run, summarise(run.timelines)))
        self.screen.say(f"{arm.title}: load done in {self.results[-1].summary.makespan_ns / 1e9:.0f} s.")

    def _ask(self, server: RunningServer, machine: Machine) -> None:
        """One question, answered to its natural end."""
        self.screen.stage("Asking the model a question")
        client = StreamingClient(Endpoint(server.url, server.name), machine.targets)
        question = ScheduledRequest(
            request_id="question", offset_ns=0, prompt=(Message("user", CLOSING_QUESTION),), max_tokens=160
        )
        outcome = client.send(question)
        self.answer = outcome.text.strip() or f"(no answer: {outcome.timeline.error})"
