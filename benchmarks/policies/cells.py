"""The cells of the bench: machine x traffic x deadlines."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sarathi_plugin.config import SloClassSettings
from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.simulate.targets import prefill_curve, reference_decode_ns
from sarathi_plugin.steptime.profile import StepTimeProfile, read_profile
from sarathi_plugin.workload.kinds import make_trace
from sarathi_plugin.workload.trace import Trace

MACHINES = {"a100": "a100-llama-3-8b-tp1", "h100": "h100-llama-2-7b", "cpu": "cpu-fast-model"}
TRAFFIC = ("sharegpt-like", "arxiv-like", "azure-conv-like", "mixed-classes")
TEST_ONLY_TRAFFIC = ("azure-conv-like",)
FACTORS = (1.5, 3.0, 6.0)
"""D_d as a multiple of the machine's decode step at batch 32 without interference."""

SLACKS_S = (0.3, 1.0)
DOCUMENT_FACTOR, DOCUMENT_SLACK_S = 12.0, 8.0
"""Deadlines of the document class in mixed cells; the cell's own set the interactive class."""

SESSION_TRAFFIC = ("agentic", "chat-sessions")
"""Turns that repeat what was said before: prefix caching is on."""

MODEL_TOKENS, SESSION_TOKENS = 16_384, 40_960
"""Longest prompt plus answer; of sessions. Beyond the 4k context of Llama-2-7B: there the machine is simulated, not the
model."""

TEST_SEED = 1000
"""Seeds from here on are for testing only."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One machine under one kind of traffic with one set of deadlines."""

    machine: str
    traffic: str
    factor: float
    slack_s: float

    @property
    def name(self) -> str:
        """Short, for tables and files."""
        return f"{self.machine}/{self.traffic}/x{self.factor:g}/{self.slack_s:g}s"

    @property
    def test_only(self) -> bool:
        """Whether nothing may be tuned on this cell."""
        return self.traffic in TEST_ONLY_TRAFFIC

    @property
    def caches(self) -> bool:
        """Whether prompts share prefixes, so that caching them makes a difference."""
        return self.traffic in SESSION_TRAFFIC

    @property
    def profile(self) -> StepTimeProfile:
        """The machine."""
        return profile_of(self.machine)

    @property
    def curve_name(self) -> str:
        """The shipped prefill curve of the machine."""
        return MACHINES[self.machine]

    def classes(self) -> dict[str, SloClassSettings]:
        """SLO classes; the first is the default."""
        unit_ms = reference_decode_ns(self.profile) / NS_PER_MS
        first = SloClassSettings(tbt_ms=self.factor * unit_ms, ttft_slack_ms=1000 * self.slack_s)
        if self.traffic != "mixed-classes":
            return {"standard": first}
        document = SloClassSettings(tbt_ms=DOCUMENT_FACTOR * unit_ms, ttft_slack_ms=1000 * DOCUMENT_SLACK_S)
        return {"interactive": first, "batch": document}

    def targets(self) -> Targets:
        """What requests are judged by."""
        classes = {name: spec.build(name) for name, spec in self.classes().items()}
        return Targets(next(iter(classes.values())), prefill_curve(self.profile).build(), classes)

    def settings(self) -> dict[str, Any]:
        """The same for the plugin."""
        classes = self.classes()
        return {
            "classes": {name: spec.model_dump() for name, spec in classes.items()},
            "default_class": next(iter(classes)),
            "prefill_curve": self.curve_name,
        }

    def trace(self, rate: float, seed: int, count: int, *, priority: bool = False) -> Trace:
        """The traffic at a rate; under one seed the same requests at every rate. priority: documents come second."""
        trace = make_trace(self.traffic, rate=rate, count=count, seed=seed)
        if not priority:
            return trace
        ranked = [replace(r, priority=int(r.slo_class == "batch")) for r in trace.requests]
        return Trace(trace.name, tuple(ranked))


@cache
def profile_of(machine: str) -> StepTimeProfile:
    """A machine's shipped profile."""
    return read_profile(MACHINES[machine])


ALL = [Cell(*parts) for parts in itertools.product(MACHINES, TRAFFIC, FACTORS, SLACKS_S)]

BALANCED = [
    Cell(machine, traffic, FACTORS[(m + t) % 3], SLACKS_S[(m + t) % 2])
    for (m, machine), (t, traffic) in itertools.product(enumerate(MACHINES), enumerate(TRAFFIC))
]
"""Twelve: every pair of machine and traffic once, every factor four times, every slack six times."""

QUICK = [BALANCED[i] for i in (0, 5, 11, 3)]
"""Four that may be tuned on: a machine each and one more."""

TIGHT = [
    Cell(machine, "sharegpt-like", 1.0, slack_s) for machine, slack_s in itertools.product(MACHINES, SLACKS_S)
]
"""D_d as short as a decode step at batch 32: only smaller batches keep it."""

SESSIONS = [
    Cell(machine, traffic, FACTORS[(m + t) % 3], SLACKS_S[(m + t) % 2])
    for (m, machine), (t, traffic) in itertools.product(enumerate(MACHINES), enumerate(SESSION_TRAFFIC))
]
"""Six with prefix caching: every machine with every kind of session."""

SETS = {"quick": QUICK, "balanced": BALANCED, "tight": TIGHT, "full": ALL, "sessions": SESSIONS}
