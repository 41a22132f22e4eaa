"""Few requests that arrive close together: a search over whole steps, where windows are blind to their length.

Windows let a step be cut anywhere for free. Here steps run to their end and cost what they cost; only prompt progress
is rounded, in the scheduler's favour and never by more than one grain per unfinished prompt (docs/bound.md, section 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sarathi_plugin.search.windows import TOLERANCE, View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.search.relaxation import Problem

CLUSTER = 6
"""Requests searched together."""

CLUSTERS = 8
"""Runs of neighbouring requests that are searched: the closest ones."""

LEVELS = (4, 8)
"""Marks of progress per prompt, coarse first; a prompt of no more tokens is searched token by token."""

MAX_TOKENS = 32
"""Longer outputs are searched up to here; what follows is left to the windows."""

State = tuple[int, ...]


class Move(NamedTuple):
    """One job's part of a step: ``advance`` positions.

    tokens and own: its rounded tokens and its cost beside the token table. fewer: by how much its true tokens may fall
    short of the rounded ones. kind: 1 decode, 2 prefill. emits: whether a token comes out.
    """

    advance: int
    tokens: int
    own: float
    fewer: int
    kind: int
    emits: bool


class Prospect:
    """One job of a cluster: its moves, last times and largest rounding gift at each position.

    Positions before ``out`` are prompt progress, rounded up to grains; position out + i: token i is out.
    """

    def __init__(self, problem: Problem, job: int, view: View, price: float, levels: int) -> None:
        self.prompt = int(problem.tokens[job])
        self.grain = -(-self.prompt // levels)
        due = float(view.due[job]) + 1
        # With whole grains, one more position: all but the end of the prompt is done.
        self.out = -(-self.prompt // self.grain) + (self.grain > 1)
        self.final = self.out + int(min(problem.outputs[job], MAX_TOKENS)) - 1
        self.release = float(view.release[job])
        places = range(self.final + 1)
        self.due = [due + max(0, at - self.out) * float(problem.tbt[job]) for at in places]
        self.moves = [self._moves(problem, at) for at in places]
        self.gift = [self._gift(problem, at, price) for at in places]
        self.latest = self._latest(problem)
        self.out_by = min(self.latest[self.out], self.due[self.out])
        whole = float(problem.cost.prompt_work(self.prompt))
        done = [self._done(at) for at in range(self.out)]
        self.rest = [price * (self.prompt - d) + whole - float(problem.cost.prompt_work(d)) for d in done]

    def _done(self, at: int) -> int:
        """Prompt tokens done at a position, rounded up."""
        return min(self.prompt, at * self.grain)

    def _gift(self, problem: Problem, at: int, price: float) -> float:
        """Most time by which rounding can have overstated the progress at a position."""
        if not 0 < at < self.out:
            return 0.0
        done = self._done(at)
        over = float(problem.cost.prompt_work(done)) - float(problem.cost.prompt_work(done - self.grain + 1))
        return price * (self.grain - 1) + over

    def _moves(self, problem: Problem, at: int) -> list[Move]:
        """What a step can do for the job at a position."""
        cost = problem.cost
        if at >= self.out:
            own = cost.decode_row_ns + cost.decode_context_token_ns * (self.prompt + at - self.out)
            return [Move(1, 1, own, 0, 1, True)] if at < self.final else []
        found = []
        before = self._done(at)
        for to in range(at + 1, self.out + 1):
            done = self._done(to)
            own = float(cost.prompt_work(done)) - float(cost.prompt_work(before))
            fewer = self.grain - 1 if to < self.out else 0
            found.append(Move(to - at, done - before, own, fewer, 2, to == self.out))
        return found

    def _latest(self, problem: Problem) -> list[float]:
        """Last time at which the job, alone from then on, can be at each position."""
        cost, lines = problem.cost, problem.lines
        latest = [np.inf] * (self.final + 1)
        one = cost.host_ns + cost.linear(1) + cost.decode_step_ns
        for at in range(self.final - 1, self.out - 1, -1):
            latest[at] = min(latest[at + 1], self.due[at + 1]) - one - self.moves[at][0].own
        out = min(latest[self.out], self.due[self.out])
        for at in range(self.out):
            done = self._done(at)
            rest = float(np.max(lines[:, 0] + lines[:, 1] * (self.prompt - done))) + cost.prefill_step_ns
            latest[at] = out - rest - float(cost.prompt_work(self.prompt)) + float(cost.prompt_work(done))
        return latest


class Search:
    """Depth-first search for a relaxed schedule of a few jobs; equal progress is not visited again unless earlier.

    Its clock is never ahead of the true time by more than the gifts of its state. price: what a token of rounding
    is worth, at most the least cost per token of any step (then it is best).
    """

    def __init__(self, problem: Problem, jobs: Sequence[Prospect], price: float) -> None:
        cost = problem.cost
        self.jobs = jobs
        self.price = price
        self.kinds = (
            0.0,
            cost.decode_step_ns,
            cost.prefill_step_ns,
            cost.decode_step_ns + cost.prefill_step_ns,
        )
        most = 2 * sum(job.prompt + 1 for job in jobs)
        self.table = np.array([cost.host_ns + cost.linear(n) for n in range(most + 1)]) * (1 - TOLERANCE)
        self.table -= price * np.arange(most + 1)
        self.by_due = sorted(range(len(jobs)), key=lambda i: jobs[i].out_by)
        self.effort = 0
        self.charges: dict[tuple[int, int, int], float] = {}

    def charge(self, tokens: int, fewer: int, more: int) -> float:
        """Least cost of a step of so many rounded tokens, with the rounding it may add or use up at its price."""
        key = (tokens, fewer, more)
        if key not in self.charges:
            low, high = max(1, tokens - fewer), tokens + more
            self.charges[key] = float(self.table[low : high + 1].min()) + self.price * tokens
        return self.charges[key]

    def impossible(self, effort: int) -> bool:
        """Whether no schedule exists; False when ``effort`` partial steps were not enough to tell."""
        self.effort = effort
        seen: dict[State, float] = {}
        goal = tuple(job.final for job in self.jobs)
        stack: list[tuple[float, State]] = [(0.0, (0,) * len(self.jobs))]
        while stack:
            clock, state = stack.pop()
            if state == goal:
                return False
            if seen.get(state, np.inf) <= clock:
                continue
            seen[state] = clock
            after = self.after(clock, state)
            if self.effort < 0:
                return False
            progress = sum(state)
            after.sort(key=lambda end: (end[0] - clock) / (sum(end[1]) - progress), reverse=True)
            stack += after
        return True

    def after(self, clock: float, state: State) -> list[tuple[float, State]]:
        """Every step from here after which each job can still be on time: (clock, state)."""
        jobs = self.jobs
        active = [i for i, job in enumerate(jobs) if state[i] < job.final]
        gifts = sum(job.gift[at] for job, at in zip(jobs, state, strict=True))
        # A prompt between two grains may use part of its gift in any step, whether it moves on or not.
        more = sum(job.grain - 1 for job, at in zip(jobs, state, strict=True) if 0 < at < job.out)
        most = sum(max(jobs[i].gift[state[i] :]) for i in active)
        limit = min(jobs[i].latest[state[i]] for i in active) + gifts
        places = list(state)
        found: list[tuple[float, State]] = []

        def close(start: float, tokens: int, fewer: int, own: float, kinds: int, until: float) -> None:
            end = start + self.charge(tokens, fewer, more) + own + self.kinds[kinds]
            sure = end - sum(jobs[i].gift[places[i]] for i in active)
            if sure <= until and self.prompts_fit(sure, places):
                found.append((end, tuple(places)))

        def extend(
            at: int, start: float, tokens: int, fewer: int, own: float, kinds: int, until: float
        ) -> None:
            self.effort -= 1
            if self.effort < 0:
                return
            if at == len(active):
                if kinds:
                    close(start, tokens, fewer, own, kinds, until)
                return
            i = active[at]
            job, place = jobs[i], state[i]
            begin = max(start, job.release)
            if begin <= limit:
                for move in job.moves[place]:
                    places[i] = place + move.advance
                    soon = min(until, job.latest[places[i]], job.due[places[i]] if move.emits else np.inf)
                    sum_tokens, sum_own = tokens + move.tokens, own + move.own
                    # No step costs less than the price of its tokens.
                    if begin + self.price * sum_tokens + sum_own - most > soon:
                        continue
                    extend(at + 1, begin, sum_tokens, fewer + move.fewer, sum_own, kinds | move.kind, soon)
                places[i] = place
            extend(at + 1, start, tokens, fewer, own, kinds, min(until, job.latest[place]))

        extend(0, clock, 0, 0, 0.0, 0, np.inf)
        return found

    def prompts_fit(self, now: float, places: Sequence[int]) -> bool:
        """Whether the prompts that are left could be on time if only their tokens took time (earliest due first)."""
        for i in self.by_due:
            job, at = self.jobs[i], places[i]
            if at < job.out:
                now += job.rest[at]
                if now > job.out_by:
                    return False
        return True


def clusters(problem: Problem) -> list[range]:
    """Runs of neighbouring requests to search, short ones first: of each length those that arrive closest together."""
    count = len(problem.jobs)
    found = []
    for size in range(2, min(CLUSTER, count) + 1):
        span = problem.arrival[size - 1 :] - problem.arrival[: count - size + 1]
        found += [range(i, i + size) for i in np.argsort(span, kind="stable")[:CLUSTERS].tolist()]
    return found


def stuck(problem: Problem, low: float, high: float, effort: int) -> bool:
    """Whether some few neighbours cannot all be fluid at any factor from low to high (False: not found out).

    Says nothing when jobs may be dropped: they could be these. effort: partial steps tried per run of neighbours.
    """
    if problem.drop:
        return False
    # The steepest line runs through the origin: no step costs less per token.
    price = float(problem.lines[:, 1].max()) * (1 - TOLERANCE)
    for members in clusters(problem):
        view = View.build(problem, members[0], low, high)
        for levels in LEVELS:
            jobs = [Prospect(problem, j, view, price, levels) for j in members]
            if Search(problem, jobs, price).impossible(effort):
                return True
            if all(job.grain == 1 for job in jobs):
                break
    return False
