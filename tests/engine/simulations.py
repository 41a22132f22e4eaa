"""What the tests of the simulator share: a small machine, small traffic."""

from __future__ import annotations

from typing import Any

import numpy as np

from sarathi_plugin.config import load_curve
from sarathi_plugin.core import SloClass
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.simulate.run import Simulation, SimulationResult, simulate
from sarathi_plugin.simulate.spec import EngineSpec
from sarathi_plugin.steptime.profile import ModelFacts, Provenance, Residuals, StepTimeProfile
from sarathi_plugin.workload.trace import Segment, Trace, TraceRequest

MODEL = ModelFacts(
    name="tiny",
    layers=4,
    hidden_size=256,
    heads=4,
    kv_heads=2,
    head_dim=64,
    max_model_len=4096,
    weight_bytes=10**6,
)
NOISE = Residuals(decode=[0.9, 0.98, 1.0, 1.02, 1.1], prefill=[0.8, 0.95, 1.0, 1.05, 1.2])
TARGETS = Targets(SloClass("standard", 50_000_000, 300_000_000), load_curve("a100-llama-3-8b"))


def make_profile(*, noise: Residuals | None = None, **more: Any) -> StepTimeProfile:
    """A machine of 10 ms a step and 50 us a token."""
    return StepTimeProfile(
        name="tiny",
        model=MODEL,
        hardware="none",
        memory_bytes=10**10,
        linear_s=[(1, 0.01005), (1001, 0.06005)],
        residuals=noise or Residuals(),
        provenance=Provenance(source="made up", method="for tests"),
        **more,
    )


def make_traffic(
    count: int = 60,
    *,
    gap_s: float = 0.1,
    seed: int = 0,
    prompt: tuple[int, int] = (10, 800),
    output: tuple[int, int] = (2, 80),
    shared: int = 0,
    aborts: int = 0,
) -> Trace:
    """Poisson arrivals. shared: tokens that every third prompt begins with. aborts: every so many hang up early."""
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.exponential(gap_s, count)) * 1e9
    found = []
    for i in range(count):
        own, answer = int(rng.integers(*prompt)), int(rng.integers(*output))
        common = (Segment(-1, shared),) if shared and i % 3 == 0 else ()
        segments = (*common, Segment(i, own)) if shared else ()
        found.append(
            TraceRequest(
                request_id=f"r{i}",
                offset_ns=int(at[i]),
                prompt_tokens=own + sum(part.tokens for part in common),
                output_tokens=answer,
                segments=segments,
                abort_ns=150_000_000 if aborts and i % aborts == aborts - 1 else None,
            )
        )
    return Trace("traffic", tuple(found))


def run(
    scheduler: str,
    trace: Trace,
    *,
    profile: StepTimeProfile | None = None,
    settings: dict[str, Any] | None = None,
    forward: bool = True,
    steps: bool = False,
    seed: int = 0,
    replicas: int = 1,
    router: str = "least-outstanding",
    **engine: Any,
) -> SimulationResult:
    """One simulation of the small machine."""
    plugin = {} if scheduler == "stock" else {"tbt_ms": 50, "ttft_slack_ms": 300, **(settings or {})}
    spec = EngineSpec(scheduler=scheduler, sarathi=plugin, **{"max_num_seqs": 64, **engine})
    return simulate(
        Simulation(
            profile=profile or make_profile(),
            engine=spec,
            trace=trace,
            targets=TARGETS,
            seed=seed,
            replicas=replicas,
            router=router,
            forward=forward,
            keep_steps=steps,
        )
    )
