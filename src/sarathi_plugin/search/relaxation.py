"""What the bound knows of jobs and machine: least durations, release times and last allowed times of every token.

Derivations and proofs: docs/bound.md. All arrays are float64 nanoseconds or tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MAX_LINES = 12
"""Supporting lines kept: each is one more valid inequality, so fewer cost tightness only."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request as a perfect oracle knows it: tbt_ns is D_d, first_ns is D_p (time allowed for the first token)."""

    arrival_ns: int
    prompt_tokens: int
    output_tokens: int
    tbt_ns: int
    first_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class CostModel:
    """How long a step lasts (``StepShape`` in core): host + linear(tokens) + prefill part + decode part, nanoseconds.

    linear_ns: shape (n + 1,), the table at 0, 1, ... n tokens, not falling; element 0 is not read; beyond n its
    last slope goes on. The context of a decode is what was computed before the step. Raises ConfigError.
    """

    linear_ns: Floats
    host_ns: float = 0.0
    decode_step_ns: float = 0.0
    decode_row_ns: float = 0.0
    decode_context_token_ns: float = 0.0
    prefill_step_ns: float = 0.0
    prefill_token_ns: float = 0.0
    prefill_pair_ns: float = 0.0

    def __post_init__(self) -> None:
        table = self.linear_ns
        if len(table) < 3 or not np.isfinite(table).all() or table[1] <= 0 or (np.diff(table[1:]) < 0).any():
            raise ConfigError(
                "A cost model needs a table of step times at 0, 1, 2 or more tokens that is positive and never falls."
            )
        costs = [getattr(self, field.name) for field in fields(self) if field.name != "linear_ns"]
        if not all(0 <= cost < np.inf for cost in costs):
            raise ConfigError("Costs of a cost model must be zero or more; measure the profile again.")

    def linear(self, tokens: int) -> float:
        """The token table at one size, nanoseconds."""
        last = len(self.linear_ns) - 1
        if tokens <= last:
            return float(self.linear_ns[tokens])
        return float(
            self.linear_ns[last] + (tokens - last) * (self.linear_ns[last] - self.linear_ns[last - 1])
        )

    def prompt_work(self, tokens: int | Floats) -> float | Floats:
        """Cost of a prompt that no chunking or batching changes: its tokens and its n^2 / 2 query-key pairs."""
        return self.prefill_token_ns * tokens + self.prefill_pair_ns * tokens * tokens / 2


def supporting_lines(cost: CostModel) -> Floats:
    """Lines under the cost of a step: rows (a, b), a >= 0, with host + linear(n) >= a + b n for every n >= 1.

    The lower convex hull of the table, each edge a line, plus the steepest line through the origin: with a >= 0 the
    sum over at least K steps of N tokens is at least a K + b N (Jensen, step by step). Shape (lines, 2).
    """
    table = cost.linear_ns[1:] + cost.host_ns
    tokens = np.arange(1.0, len(table) + 1)
    tail = float(table[-1] - table[-2])
    hull: list[int] = []
    for i in range(len(table)):
        while len(hull) >= 2 and _above(table, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(i)
    corners = np.array(hull)
    slopes = np.unique(np.concatenate([[0.0, tail], np.diff(table[corners]) / np.diff(corners)]))
    slopes = np.append(slopes[slopes <= tail], min(tail, float(np.min(table / tokens))))
    bases = np.min(table[corners, None] - slopes * (corners[:, None] + 1), axis=0)
    lines: Floats = np.unique(np.stack([bases, slopes], axis=1)[bases >= -1e-6], axis=0)
    lines[:, 0] = np.maximum(lines[:, 0], 0.0)
    kept: Floats = lines[np.unique(np.linspace(0, len(lines) - 1, MAX_LINES).round().astype(int))]
    return kept


def _above(table: Floats, first: int, middle: int, last: int) -> bool:
    """Whether the middle point lies on or above the chord of its neighbours."""
    rise = (table[middle] - table[first]) * (last - first)
    return bool(rise >= (table[last] - table[first]) * (middle - first))


class Problem:
    """Jobs sorted by arrival, with what holds for each at any arrival rate.

    allowed: last time of token 0, after arrival; token i may come ``i tbt`` later. prompt: least time from arrival to
    first token; step: least time of any further one. All of shape (jobs,). drop: jobs that need not be fluid.
    """

    def __init__(self, jobs: Sequence[Job], cost: CostModel, share: float) -> None:
        if not 0 < share <= 1:
            raise ConfigError(f"The share of fluid requests is {share}; give one above 0 and up to 1.")
        if any(min(j.prompt_tokens, j.output_tokens, j.tbt_ns) < 1 or j.first_ns < 0 for j in jobs):
            raise ConfigError(
                "A job has no prompt, no output, no D_d or a negative D_p; leave it out or correct it."
            )
        self.cost = cost
        self.lines = supporting_lines(cost)
        self.jobs = sorted(jobs, key=lambda job: job.arrival_ns)
        columns = [(j.arrival_ns, j.prompt_tokens, j.output_tokens, j.tbt_ns, j.first_ns) for j in self.jobs]
        table = np.array(columns, np.float64).reshape(-1, 5)
        self.arrival, self.tokens, self.outputs, self.tbt, first = table.T
        misses = late_periods(self.outputs)
        # k misses buy less than k periods: one nanosecond short of them.
        self.allowed = first + misses * self.tbt - (misses > 0)
        self.work = np.asarray(cost.prompt_work(self.tokens))
        base = np.max(self.lines[:, 0] + self.lines[:, 1] * self.tokens[:, None], axis=1)
        self.prompt = base + cost.prefill_step_ns + self.work
        one = cost.host_ns + cost.linear(1) + cost.decode_step_ns
        self.step = one + cost.decode_row_ns + cost.decode_context_token_ns * self.tokens
        self.drop = int(np.floor((1 - share) * len(self.jobs) + 1e-9))


def late_periods(outputs: Floats) -> Floats:
    """Most deadlines a fluid request of so many tokens can miss: 9 missed + 1 late token <= tokens."""
    return np.floor((outputs - 1) / 9)
