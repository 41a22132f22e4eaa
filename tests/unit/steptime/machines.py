"""Machines whose truth is known, and the steps they would record."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from sarathi_plugin.core import NS_PER_S, StepShape
from sarathi_plugin.records import StepRecord
from sarathi_plugin.steptime.machine import ProfileModel
from sarathi_plugin.steptime.profile import ModelFacts, Provenance, Residuals, StepTimeProfile

FACTS = ModelFacts(
    name="a model",
    layers=4,
    hidden_size=512,
    heads=8,
    kv_heads=2,
    head_dim=64,
    max_model_len=4096,
    weight_bytes=10**8,
)
STAIRS = [
    (1, 0.005),
    (64, 0.006),
    (65, 0.008),
    (128, 0.009),
    (129, 0.012),
    (256, 0.014),
    (257, 0.019),
    (512, 0.026),
]


def profile(**changed: object) -> StepTimeProfile:
    """A machine with stairs at tile edges, without residuals."""
    fields = {
        "name": "truth",
        "model": FACTS,
        "hardware": "a machine",
        "memory_bytes": 10**9,
        "linear_s": STAIRS,
        "decode_step_s": 0.0006,
        "decode_row_s": 8e-5,
        "decode_context_token_s": 3e-8,
        "prefill_step_s": 0.0004,
        "prefill_token_s": 2e-6,
        "prefill_pair_s": 5e-9,
        "provenance": Provenance(source="made up", method="made up"),
    }
    return StepTimeProfile.model_validate(fields | changed)


def with_residuals(**changed: object) -> StepTimeProfile:
    """The same with residuals of a tenth either way."""
    return profile(residuals=Residuals(decode=[0.9, 1.0, 1.1], prefill=[0.95, 1.05]), **changed)


def shapes(count: int, rng: np.random.Generator, *, prompts: float = 0.4) -> list[StepShape]:
    """Steps of a loaded server with a budget of 512 tokens."""
    found = []
    for _ in range(count):
        rows = int(rng.integers(0, 65))
        chunk = int(rng.integers(1, 513 - rows)) if rng.random() < prompts or not rows else 0
        context = rows * int(rng.integers(50, 2000))
        found.append(StepShape(rows, rows, context, chunk, chunk * (rng.integers(0, 1500) + chunk / 2)))
    return found


def record(step: int, start_ns: int, duration_ns: int, shape: StepShape, **changed: object) -> StepRecord:
    """One finished step."""
    fields = {
        "schedule_ns": start_ns,
        "chunks": int(shape.prefill_tokens > 0),
        "predicted_ns": 0,
        "available_ns": None,
        "budget": 512,
        "limit": "",
        "running": shape.decode_rows + int(shape.prefill_tokens > 0),
        "waiting": 0,
        "free_blocks": 100,
        "preemptions": 0,
        "relegations": 0,
        "policy_ns": 0,
        "fallback": False,
    }
    return StepRecord(
        step=step, start_ns=start_ns, end_ns=start_ns + duration_ns, shape=shape, **fields | changed
    )


def recorded(
    truth: StepTimeProfile,
    todo: list[StepShape],
    rng: np.random.Generator,
    *,
    sigma: float = 0.0,
    host_s: tuple[float, float] = (0.0, 0.0),
) -> list[StepRecord]:
    """The steps as that machine would record them: lognormal noise of mean 1, host time (constant, per request)."""
    model = ProfileModel(truth)
    found, now = [], 10**12
    for number, shape in enumerate(todo, 1):
        running = shape.decode_rows + int(shape.prefill_tokens > 0)
        now += round((host_s[0] + host_s[1] * running) * NS_PER_S)
        noise = rng.lognormal(-(sigma**2) / 2, sigma) if sigma else 1.0
        found.append(record(number, now, round(model.predict_ns(shape) * noise), shape))
        now = found[-1].end_ns
    return found


def never_falls(values: list[float]) -> bool:
    """Whether every value is at least the one before."""
    return all(a <= b for a, b in pairwise(values))
