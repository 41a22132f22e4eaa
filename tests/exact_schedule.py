"""What the capacity bound is measured against: small instances, and an exhaustive search for a schedule of them.

It tries every set of decodes and every chunk of every prompt (in multiples of ``chunk`` tokens) in every step, and
counts deadlines as Etalon does, so it shares no shortcut with the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from typing import NamedTuple

import numpy as np

from sarathi_plugin.deadlines import overdue_periods
from sarathi_plugin.search.bound import CostModel, Job

MS = 1e6
A100_LLAMA_3_8B = (
    (1, 9.7), (64, 11.2), (128, 13.2), (136, 18.1), (256, 19.5), (264, 26.5), (512, 34.6), (1024, 75.0), (2048, 144.0),
    (4096, 273.0), (16384, 1047.0),
)  # fmt: skip
"""(tokens, milliseconds) of the linear layers; the last is extrapolated."""

WORKLOADS = ("prefill", "decode", "ttft", "classes", "late")
MACHINES = ("small", "a100")


@dataclass(frozen=True)
class Instance:
    """Jobs on a machine; chunk: prompts are cut at multiples of so many tokens."""

    workload: str
    machine: str
    jobs: tuple[Job, ...]
    cost: CostModel
    chunk: int

    def compressed(self, factor: float) -> tuple[Job, ...]:
        """The jobs with arrivals divided by the factor."""
        return tuple(
            Job(round(j.arrival_ns / factor), j.prompt_tokens, j.output_tokens, j.tbt_ns, j.first_ns)
            for j in self.jobs
        )


def draw_cost(rng: np.random.Generator, machine: str) -> CostModel:
    """A machine. small: a token is as large as a chunk elsewhere; a100: the measured table, faster or slower."""
    if machine == "a100":
        tokens, times = zip(*A100_LLAMA_3_8B, strict=True)
        table = np.interp(np.arange(16385), tokens, times) * rng.uniform(0.5, 2)
        units = (200.0, 5e3, 6.0)
    else:
        sizes = np.arange(65)
        stair = rng.uniform(0, 6) * rng.integers(0, 2) * (sizes // rng.integers(2, 5))
        table = rng.uniform(4, 12) + rng.uniform(1, 8) * sizes + stair
        units = (0.1 * MS, 0.5 * MS, 0.3 * MS)
    context, token, pair = (rng.uniform(0, unit) for unit in units)
    host, decode, prefill = rng.uniform(0, 3), rng.uniform(0, 1), rng.uniform(0, 1)
    return CostModel(
        table * MS, host * MS, decode * MS, rng.uniform(0, 0.5) * MS, context, prefill * MS, token, pair
    )


def draw(rng: np.random.Generator, workload: str, machine: str) -> Instance:
    """A random instance: 4 or 5 requests (2 or 3 when ``late``), Poisson arrivals.

    Prompts are 1 to 6 tokens on ``small`` (every chunking is tried), 1 to 4 chunks of 256 on ``a100``.
    """
    cost = draw_cost(rng, machine)
    chunk = 1 if machine == "small" else 256
    count = int(rng.integers(2, 4) if workload == "late" else rng.integers(4, 6))
    one = cost.host_ns + cost.linear(1) + cost.decode_step_ns
    arrival = 0.0
    jobs = []
    for index in range(count):
        kind = str(rng.choice(WORKLOADS[:3])) if workload == "classes" else workload
        if kind == "prefill":
            prompt, output, first, tbt = (2, 5), (1, 4), (1.5, 4.0), (2.0, 6.0)
        elif kind == "decode":
            prompt, output, first, tbt = (1, 3), (3, 7), (1.5, 4.0), (1.5, 3.0)
        elif kind == "ttft":
            prompt, output, first, tbt = (1, 5), (1, 4), (1.05, 1.5), (2.0, 6.0)
        else:
            prompt, output, first, tbt = (1, 4), (10, 13) if index == 0 else (1, 4), (1.3, 3.0), (1.5, 3.0)
        more = 1 if machine == "small" else 0
        tokens = int(rng.integers(prompt[0] + more, prompt[1] + 2 * more)) * chunk
        alone = step_ns(cost, [], [(tokens, 0)])
        allowed = int(alone * rng.uniform(*first))
        jobs.append(
            Job(int(arrival), tokens, int(rng.integers(*output)), int(one * rng.uniform(*tbt)), allowed)
        )
        arrival += rng.exponential(100 * MS)
    return Instance(workload, machine, tuple(jobs), cost, chunk)


def step_ns(cost: CostModel, contexts: list[int], chunks: list[tuple[int, int]]) -> int:
    """Duration of a step that decodes at these contexts and computes these (tokens, context) chunks."""
    tokens = len(contexts) + sum(c for c, _ in chunks)
    found = cost.host_ns + cost.linear(tokens)
    if contexts:
        found += cost.decode_step_ns + cost.decode_row_ns * len(contexts)
        found += cost.decode_context_token_ns * sum(contexts)
    if chunks:
        pairs = sum(c * (before + c / 2) for c, before in chunks)
        found += cost.prefill_step_ns + cost.prefill_token_ns * sum(c for c, _ in chunks)
        found += cost.prefill_pair_ns * pairs
    return ceil(found)


class Ledger(NamedTuple):
    """Progress and deadlines of one job: prompt tokens computed, tokens out, when the next is due, misses."""

    computed: int
    out: int
    due: int
    met: int
    missed: int


class Exhaustive:
    """Looks for a schedule that makes every job fluid, trying all there are.

    Of two states that differ in time alone the earlier is at least as good. The machine idles only until an arrival:
    without misses that loses nothing; a request of 10 or more tokens may in rare cases gain from a longer wait,
    so for those the search may miss a schedule (and the bound looks worse than it is).
    """

    def __init__(self, instance: Instance) -> None:
        self.jobs = instance.jobs
        self.cost = instance.cost
        self.chunk = instance.chunk
        most = sum(job.prompt_tokens for job in self.jobs)
        self.table = [0.0] + [self.cost.linear(n) for n in range(1, most + 1)]
        self.cheapest = min((self.cost.host_ns + time) / n for n, time in enumerate(self.table) if n)
        self.alone = [self._alone(job) for job in self.jobs]

    def _alone(self, job: Job) -> list[list[float]]:
        """Last time after arrival to be at [chunks done][0], and at [all chunks][tokens out] after the prompt.

        [all chunks][0] is when the prompt must be done.
        """
        grant = (job.output_tokens - 1) // 9 * job.tbt_ns
        chunks = -(-job.prompt_tokens // self.chunk)
        last = [inf] * (job.output_tokens + 1)
        for out in range(job.output_tokens - 1, 0, -1):
            due = min(last[out + 1], job.first_ns + out * job.tbt_ns + grant)
            last[out] = due - step_ns(self.cost, [job.prompt_tokens + out - 1], [])
        done = last[0] = min(last[1], job.first_ns + grant)
        before: list[float] = [inf] * chunks
        for at in range(chunks - 1, -1, -1):
            start = at * self.chunk
            ends = [(to, done if to == chunks else before[to]) for to in range(at + 1, chunks + 1)]
            before[at] = max(
                end - step_ns(self.cost, [], [(min(job.prompt_tokens, to * self.chunk) - start, start)])
                for to, end in ends
            )
        return [[time] for time in before] + [last]

    def possible(self, factor: float) -> bool:
        """Whether all can be fluid with arrivals divided by the factor."""
        arrivals = [round(job.arrival_ns / factor) for job in self.jobs]
        start = tuple(
            Ledger(0, 0, a + job.first_ns, 0, 0) for a, job in zip(arrivals, self.jobs, strict=True)
        )
        seen: dict[tuple[Ledger, ...], int] = {}
        stack = [(min(arrivals), start)]
        while stack:
            now, state = stack.pop()
            if all(at.out == job.output_tokens for at, job in zip(state, self.jobs, strict=True)):
                return True
            if seen.get(state, inf) <= now:
                continue
            seen[state] = now
            stack += sorted(self._steps(now, state, arrivals), key=lambda step: -step[0])
        return False

    def _steps(
        self, now: int, state: tuple[Ledger, ...], arrivals: list[int]
    ) -> list[tuple[int, tuple[Ledger, ...]]]:
        """All steps from here that leave every job a chance: (end, state)."""
        found = []
        options = [self._options(job, at) for job, at in zip(self.jobs, state, strict=True)]
        limit = min(self._last(i, at, arrivals[i]) for i, at in enumerate(state))
        chosen = [0] * len(state)

        def choose(index: int, start: int, tokens: int, until: float) -> None:
            # Cut off as soon as the tokens chosen so far already take too long for somebody.
            if start > limit or (tokens and start + self.cost.host_ns + self.table[tokens] > until):
                return
            if index == len(state):
                after = self._run(start, state, chosen, arrivals) if tokens else None
                if after:
                    found.append(after)
                return
            job, at, arrival = self.jobs[index], state[index], arrivals[index]
            for take in (0, *options[index]):
                chosen[index] = take
                computed = min(job.prompt_tokens, at.computed + take)
                out = at.out + (take > 0 and computed == job.prompt_tokens)
                last = arrival + self.alone[index][-(-computed // self.chunk)][out]
                choose(index + 1, max(start, arrival) if take else start, tokens + take, min(until, last))

        choose(0, now, 0, inf)
        return found

    def _options(self, job: Job, at: Ledger) -> list[int]:
        """Tokens a step can carry for the job."""
        left = job.prompt_tokens - at.computed
        if left:
            return [min(left, n) for n in range(self.chunk, left + self.chunk, self.chunk)]
        return [1] if at.out < job.output_tokens else []

    def _last(self, index: int, at: Ledger, arrival: int) -> float:
        """When the job's chance is over."""
        return arrival + self.alone[index][-(-at.computed // self.chunk)][at.out]

    def _run(
        self, start: int, state: tuple[Ledger, ...], chosen: list[int], arrivals: list[int]
    ) -> tuple[int, tuple[Ledger, ...]] | None:
        """One step with these tokens: its end and the state then, or None when a job's chance is over."""
        contexts, chunks = [], []
        for job, at, take in zip(self.jobs, state, chosen, strict=True):
            if take and at.computed < job.prompt_tokens:
                chunks.append((take, at.computed))
            elif take:
                contexts.append(job.prompt_tokens + at.out - 1)
        end = start + step_ns(self.cost, contexts, chunks)
        after = []
        for index, (job, at, take) in enumerate(zip(self.jobs, state, chosen, strict=True)):
            moved = _advance(job, at, take, end) if take else at
            left = job.output_tokens - moved.out
            if moved.met + left < 9 * moved.missed or end > self._last(index, moved, arrivals[index]):
                return None
            after.append(moved)
        return (end, tuple(after)) if self._prompts_fit(end, after, arrivals) else None

    def _prompts_fit(self, now: float, state: list[Ledger], arrivals: list[int]) -> bool:
        """Whether the prompts left could be done one after another at the least cost of a token ever."""
        left = []
        for index, (job, at) in enumerate(zip(self.jobs, state, strict=True)):
            if at.computed < job.prompt_tokens:
                done = self.alone[index][-1][0]
                left.append((arrivals[index] + done, job.prompt_tokens - at.computed))
        for done, tokens in sorted(left):
            now += tokens * self.cheapest
            if now > done:
                return False
        return True


def _advance(job: Job, at: Ledger, take: int, end: int) -> Ledger:
    """The ledger after a step with ``take`` tokens of this job."""
    computed = min(job.prompt_tokens, at.computed + take)
    if computed < job.prompt_tokens:
        return at._replace(computed=computed)
    late = overdue_periods(end, at.due, job.tbt_ns)
    due = (end if late else at.due) + job.tbt_ns
    return Ledger(computed, at.out + 1, due, at.met + (not late), at.missed + late)


def largest_factor(instance: Instance, high: float, *, finest: float = 0.005) -> float:
    """A feasible factor below ``high``, the largest up to the width of the steps taken; 0 if none above 1e-5.

    Goes down in steps that grow to 10 %, then narrows the last one: it can pass over a feasible factor between
    infeasible ones, which makes the bound look worse, never better.
    """
    search = Exhaustive(instance)
    width, low = finest, high / (1 + finest)
    while not search.possible(low):
        width = min(2 * width, 0.1)
        high, low = low, low / (1 + width)
        if low < 1e-5:
            return 0.0
    while high > low * (1 + finest):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if search.possible(middle) else (low, middle)
    return low
