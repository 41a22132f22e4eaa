"""Seeded random work for the emulated engine, and what must come out of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import BUILTIN_CLASSES, load_curve
from sarathi_plugin.deadlines import count_deadlines, inter_token_times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.engine.emulator import Engine, Step, Trace

MS = 10**6
CURVE = load_curve("a100-llama-3-8b")
CLASSES = {name: spec.build(name) for name, spec in BUILTIN_CLASSES.items()}


@dataclass(frozen=True)
class Work:
    """One request of a script."""

    at_ns: int
    prompt: list[int]
    max_tokens: int
    slo_class: str | None = None
    priority: int = 0


@dataclass(frozen=True)
class Script:
    """Requests, and aborts by request number: (turns after its arrival, noticed while a step executes)."""

    work: list[Work]
    aborts: dict[int, tuple[int, bool]] = field(default_factory=dict)


def make_script(
    seed: int,
    count: int = 40,
    *,
    gap_ms: float = 60,
    prompt: tuple[int, int] = (1, 600),
    output: tuple[int, int] = (1, 60),
    aborts: int = 0,
    shared: int = 0,
    classes: Sequence[str | None] = (None,),
) -> Script:
    """Poisson arrivals. shared: length of a beginning that half of the prompts have in common."""
    rng = Random(seed)
    now = 10**9
    work = []
    common = [rng.randrange(3, 1000) for _ in range(shared)]
    for _ in range(count):
        now += round(rng.expovariate(1) * gap_ms * MS)
        own = [rng.randrange(3, 1000) for _ in range(rng.randint(*prompt))]
        begins = common if shared and rng.random() < 0.5 else []
        work.append(
            Work(now, [*begins, *own], rng.randint(*output), rng.choice(list(classes)), rng.randint(0, 3))
        )
    gone = {
        n: (rng.randrange(output[1]), rng.random() < 0.5) for n in rng.sample(range(1, count + 1), aborts)
    }
    return Script(work, gone)


def play(engine: Engine, script: Script, limit: int = 20_000) -> Trace:
    """The whole script, then until everything is answered."""
    for item in script.work:
        extra = {} if item.slo_class is None else {"slo_class": item.slo_class}
        engine.submit(item.at_ns, item.prompt, item.max_tokens, priority=item.priority, **extra)
    age = dict.fromkeys(script.aborts, 0)
    for _ in range(limit):
        for number in list(age):
            if f"r{number}" in engine.trace.tokens:
                turns, mid_flight = script.aborts[number]
                if age[number] == turns:
                    del age[number]
                    (engine.abort_mid_flight if mid_flight else engine.abort)(f"r{number}")
                else:
                    age[number] += 1
        if not engine.step():
            return engine.trace
    raise AssertionError(f"not done after {limit} turns: {waiting_for(engine)}")


def waiting_for(engine: Engine) -> str:
    """Who is still unanswered, for the message of a failure."""
    scheduler = engine.scheduler
    running = [(r.request_id, r.num_computed_tokens, r.num_tokens) for r in scheduler.running]
    waiting = [(r.request_id, r.num_tokens) for r in scheduler.waiting]
    return f"running {running}, waiting {waiting}"


def expected_tokens(engine: Engine, name: str) -> int:
    """Tokens a request is owed: its max_tokens, or what the model length leaves."""
    request = engine.submitted[name]
    return min(request.max_tokens, engine.scheduler.max_model_len - request.num_prompt_tokens)


def assert_all_answered(engine: Engine) -> None:
    """Nothing lost, nothing too much."""
    trace = engine.trace
    for name in trace.tokens:
        got, owed = len(trace.tokens[name]), expected_tokens(engine, name)
        if name in trace.aborted_ns:
            assert got <= owed, name
        else:
            assert trace.finished.get(name) == "length", (name, trace.finished.get(name))
            assert got == owed, name


def alive(trace: Trace, name: str, now_ns: int, owed: int) -> bool:
    """Whether a request had output under way just before ``now_ns`` was planned (sync mode)."""
    times = trace.tokens[name]
    before = sum(t <= now_ns for t in times)
    gone = trace.aborted_ns.get(name)
    return 0 < before < owed and (gone is None or gone > now_ns)


def decoding_at(engine: Engine, step: Step) -> list[str]:
    """Requests that could have decoded in this step (sync mode)."""
    trace = engine.trace
    return [
        name for name in trace.tokens if alive(trace, name, step.schedule_ns, expected_tokens(engine, name))
    ]


def batch_counts(engine: Engine, default: str = "standard") -> dict[tuple[str, tuple[str, ...]], float]:
    """The tracker's counters, computed from the trace alone by the batch form of the fluidity-index."""
    totals: dict[tuple[str, tuple[str, ...]], float] = defaultdict(float)
    for name, met, missed in deadline_counts(engine, default):
        slo = class_of(engine, name, default)
        totals["deadlines_met", (slo,)] += met
        totals["deadlines_missed", (slo,)] += missed
        totals["output_tokens", (slo,)] += len(engine.trace.tokens[name])
        status = {"abort": "aborted", "error": "error"}.get(engine.trace.finished[name], "finished")
        totals["requests_finished", (slo, status)] += 1
    return {key: value for key, value in totals.items() if value}


def class_of(engine: Engine, name: str, default: str = "standard") -> str:
    """The SLO class a request asked for."""
    extra: dict[str, Any] = engine.submitted[name].sampling_params.extra_args or {}
    return str(extra.get("slo_class", default))


def deadline_counts(engine: Engine, default: str = "standard") -> Iterator[tuple[str, int, int]]:
    """(request, met, missed); one aborted is charged as if a token had come at the abort, without the credit."""
    trace = engine.trace
    for name, tokens in trace.tokens.items():
        slo = CLASSES[class_of(engine, name, default)]
        first_ns = CURVE.prefill_ns(engine.submitted[name].num_prompt_tokens) + slo.ttft_slack_ns
        arrival = trace.arrivals[name]
        count = count_deadlines(inter_token_times(arrival, tokens), first_ns, slo.tbt_ns)
        missed = count.missed
        if name in trace.aborted_ns:
            until = [*tokens, trace.aborted_ns[name]]
            missed = count_deadlines(inter_token_times(arrival, until), first_ns, slo.tbt_ns).missed
        yield name, count.met, missed
