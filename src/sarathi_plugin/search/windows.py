"""Demand of time windows: the work that cannot happen outside a window must fit into it (docs/bound.md, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sarathi_plugin.search.relaxation import Floats, Problem

    Bools = NDArray[np.bool_]

MAX_ENDS = 64
"""Window ends looked at per window start."""

SCALES = ((1, 1.0), (6, 0.125), (16, 0.03125))
"""(window starts, length as a share of the run) when the jobs are too many to try every start."""

EVERY_START = 32
TOLERANCE = 1e-6
"""Engines round steps to whole nanoseconds; a step lasts over a millisecond."""


@dataclass(slots=True)
class View:
    """The jobs seen from the arrival of one of them, for every compression factor in a range.

    release: earliest arrival, due: latest allowed first token (both relative to that arrival, over the range);
    first: index of the first token that cannot start before time zero, shape (jobs,).
    """

    release: Floats
    due: Floats
    first: Floats

    @classmethod
    def build(cls, problem: Problem, start: int, low: float, high: float) -> View:
        """The view from job ``start`` for factors low to high (which may be infinite)."""
        apart = problem.arrival - problem.arrival[start]
        near, far = apart / high, apart / low
        release = np.minimum(near, far)
        due = np.maximum(near, far) + problem.allowed
        # Token i >= 1 cannot start before the prompt and i - 1 further steps of its own are done.
        ahead = np.ceil((-release - problem.prompt) / problem.step - 1e-9) + 1
        first = np.where(release >= 0, 0.0, np.clip(ahead, 1.0, problem.outputs))
        return cls(release, due, first)

    def counts(self, problem: Problem, ends: Floats) -> Floats:
        """Tokens of each job due by each end, from token 0 on: shape (ends, jobs)."""
        due = np.floor((ends[:, None] - self.due) / problem.tbt + 1e-9) + 1
        return np.clip(due, 0.0, problem.outputs)


def overload(problem: Problem, low: float, high: float) -> str | None:
    """The kind of a window that no schedule can serve at any factor from low to high, or None.

    ``latency``: one job alone is too much; ``prefill``, ``decode``: where most of the window's demand is.
    """
    for start, share in _starts(len(problem.jobs)):
        view = View.build(problem, start, low, high)
        ends = _ends(problem, view, share)
        if not len(ends):
            continue
        demand = Demand(problem, view, ends)
        over = np.flatnonzero(demand.total * (1 - TOLERANCE) > ends + 1)
        if len(over):
            return demand.kind(int(over[0]))
    return None


def _starts(jobs: int) -> Iterator[tuple[int, float]]:
    """Window starts (arrivals, as job indices) with how far their windows reach."""
    if jobs <= EVERY_START:
        yield from ((start, 1.0) for start in range(jobs))
        return
    for starts, share in SCALES:
        for start in np.linspace(0, jobs, starts, endpoint=False).astype(int):
            yield int(start), share


def _ends(problem: Problem, view: View, share: float) -> Floats:
    """Window ends: deadlines of first, middle and last tokens, thinned out evenly."""
    inside = view.first < problem.outputs
    if not inside.any():
        return np.empty(0)
    last = problem.outputs - 1
    few = len(problem.jobs) <= EVERY_START and problem.outputs.sum() <= 8 * MAX_ENDS
    marks = range(int(last.max()) + 1) if few else (0, last // 2, last)
    due = [(view.due + np.minimum(mark, last) * problem.tbt)[inside & (view.first <= mark)] for mark in marks]
    ends: Floats = np.unique(np.concatenate(due))
    ends = ends[(ends > 0) & (ends <= ends[-1] * share)]
    if not few and len(ends) > MAX_ENDS:
        ends = ends[np.linspace(0, len(ends) - 1, MAX_ENDS).astype(int)]
    return ends


class Demand:
    """Least machine time that the windows from 0 to each end must give, shape (ends,)."""

    def __init__(self, problem: Problem, view: View, ends: Floats) -> None:
        cost = problem.cost
        counts = view.counts(problem, ends)
        self.inside = np.maximum(counts - view.first, 0.0)
        prompts = (view.first == 0) & (counts >= 1)
        decodes = self.inside - prompts
        tokens = prompts * problem.tokens + decodes
        # Contexts of tokens max(first, 1) to counts - 1, each prompt + i - 1.
        contexts = decodes * (problem.tokens + (np.maximum(view.first, 1.0) + counts - 1) / 2 - 1)
        self.own_prefill = prompts * problem.work
        self.own_decode = cost.decode_row_ns * decodes + cost.decode_context_token_ns * contexts
        own = self.own_prefill + self.own_decode
        steps, decode_steps, prefill_steps = _step_counts(problem, view, ends)
        self.kinds = decode_steps * cost.decode_step_ns + prefill_steps * cost.prefill_step_ns
        per_line = [base * steps + slope_sum for base, slope_sum in self._lines(problem, tokens, own)]
        self.total = np.max(per_line, axis=0) + self.kinds
        best = int(np.argmax([line[-1] for line in per_line]))
        slope = problem.lines[best, 1]
        self.prefill_part = (prompts * problem.tokens * slope + self.own_prefill).sum(axis=1)

    @staticmethod
    def _lines(problem: Problem, tokens: Floats, own: Floats) -> Iterator[tuple[float, Floats]]:
        """Per supporting line its base and the demand of the tokens, without the jobs that cost most of it."""
        for base, slope in problem.lines:
            weights = slope * tokens + own
            demand = weights.sum(axis=1)
            if problem.drop:
                demand = demand - np.partition(weights, -problem.drop, axis=1)[:, -problem.drop :].sum(axis=1)
            yield base, demand

    def kind(self, end: int) -> str:
        """What the demand by this end consists of."""
        if np.count_nonzero(self.inside[end]) == 1:
            return "latency"
        return "prefill" if self.prefill_part[end] > self.total[end] / 2 else "decode"


def _step_counts(problem: Problem, view: View, ends: Floats) -> list[Floats]:
    """Least number of steps, of steps with decodes and of steps with prompts by each end, shape (ends,) each."""
    prompt_stop = np.where(view.first == 0, 1.0, 0.0)
    steps = _least_steps(problem, view, view.first, problem.outputs, ends)
    if len(problem.jobs) > EVERY_START:
        # Cheaper and nearly as good in long windows: every step has decodes or prompts.
        none = np.zeros(len(ends))
        cheaper = problem.cost.decode_step_ns < problem.cost.prefill_step_ns
        return [steps, steps if cheaper else none, none if cheaper else steps]
    decodes = _least_steps(problem, view, np.maximum(view.first, 1.0), problem.outputs, ends)
    return [steps, decodes, _least_steps(problem, view, view.first, prompt_stop, ends)]


def _least_steps(problem: Problem, view: View, first: Floats, stop: Floats, ends: Floats) -> Floats:
    """Least number of steps by each end whichever jobs are dropped, shape (ends,).

    Of drop + 1 groups of jobs, one keeps all of its own: the least of the groups' numbers holds.
    """
    use = np.flatnonzero((first < stop) & (view.due + first * problem.tbt <= ends[-1]))
    groups = problem.drop + 1
    if len(use) < groups:
        return np.zeros(len(ends))
    use = np.append(use, np.full(-len(use) % groups, -1)).reshape(-1, groups).T
    pad = use < 0
    at = np.where(pad, 0, use)
    left = np.where(pad, 0.0, (stop - first)[at])
    ready = (view.release + problem.prompt + first * problem.step)[at]
    due = np.where(pad, np.inf, (view.due + first * problem.tbt)[at])
    times = stabbing_times(ready, problem.step[at], due, problem.tbt[at], left, float(ends[-1]))
    counts = [np.searchsorted(group, ends + 0.5) for group in times]
    least: Floats = np.min(counts, axis=0).astype(np.float64)
    return least


def stabbing_times(
    ready: Floats, step: Floats, due: Floats, tbt: Floats, left: Floats, last: float
) -> Floats:
    """Ends of the fewest steps that could emit every token due by ``last``, if steps took no time.

    The next token of a job must come at ``ready`` or later and at ``due`` or earlier; the ``left - 1`` after it each
    ``step`` and ``tbt`` later; one token of a job per step. A step at the first pending deadline that takes along
    whatever it can is optimal, and so is every prefix of the answer for the tokens due by its end.

    All of shape (groups, jobs), groups apart; returns sorted times, (groups, steps), filled up with infinity.
    """
    times = []
    while True:
        now = due.min(axis=1)
        now[now > last] = np.inf
        if not np.isfinite(now).any():
            break
        times.append(now)
        # A token that is due before it can come has no schedule anyway; it must not stop the count.
        can = (ready <= now[:, None] + 0.5) | (due <= now[:, None])
        served = can & (left > 0) & np.isfinite(now)[:, None]
        left = left - served
        ready = ready + served * step
        due = np.where(left > 0, due + served * tbt, np.inf)
    return np.array(times).reshape(len(times), len(due)).T
