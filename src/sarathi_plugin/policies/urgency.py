"""Which prompt goes first: expected loss if it waits, per second of work. Pure functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.policies.sizing import predicted

if TYPE_CHECKING:
    from sarathi_plugin.core import IntArray, Prompts, StepView
    from sarathi_plugin.tolerance import FloatArray, Tolerance

SAMPLE = 512
"""Prompt tokens, and tokens of context, by which the price of a token and of a query-key pair are judged."""

LEAST_SHARE = 0.1
"""Share of a step that prompts get at the least, whatever the decodes take: what remains without it has no end."""

OCTAVES = (-6, 24)
"""Mean further wait in periods, as powers of sqrt(2), between which the expected loss is worked out."""

FLOOR = 1e-6
"""Loss of what can hardly lose any more: lost, or long from due. Orders it by work, shortest first."""

PATIENCE = 4
"""A prompt that is late by this many times its own allowance has a turn now and then, whatever its rank."""

LAST_PATIENCE = 16
"""One that is late by this many times it has the memory it needs kept for it: a queue that drains pays nothing."""


def work_of(view: StepView, prompts: Prompts, alone_ns: int) -> FloatArray:
    """Nanoseconds from its start to its first token of each prompt if it went alone beside the decodes; shape (n,).

    Attention included: twice the tokens are more than twice the work. Steps are as long as the tightest decode allows,
    and the decodes take their part of each. alone_ns: time of a step that carries the decodes alone.
    """
    pairs = SAMPLE * SAMPLE
    flat, steep = predicted(view.model, view.decode_shape, [SAMPLE, SAMPLE], [0.0, float(pairs)])
    left = prompts.left_tokens.astype(np.float64)
    keys = prompts.context_tokens + left / 2
    work = left * ((flat - alone_ns) / SAMPLE) + left * keys * ((steep - flat) / pairs)
    if view.decodes:
        work /= max(LEAST_SHARE, 1 - alone_ns / view.min_decode_tbt_ns)
    found: FloatArray = np.maximum(work, 1.0)
    return found


def loss_if_delayed(
    prompts: Prompts, work_ns: FloatArray, now_ns: int, wait_ns: float, tolerance: Tolerance
) -> FloatArray:
    """Expected importance each prompt loses when others go first for a while; shape (n,), positive.

    work_ns: time to its first token if it went alone from now on, shape (n,). The further wait is exponential with
    mean ``wait_ns``. Before its due time a prompt loses by the share of such waits that would make it late (the
    look-ahead of the Apparent Tardiness Cost rule, Vepsalainen and Morton 1987); after it, by the share of answers too
    short to forgive the misses added.
    """
    found = np.empty(len(work_ns))
    for index, mine in by_class(prompts.slo_index):
        slo = tolerance.slos[index]
        step = int(min(max(round(2 * math.log2(wait_ns / slo.tbt_ns)), OCTAVES[0]), OCTAVES[1]))
        late = (work_ns[mine] - (prompts.due_ns[mine] - now_ns)) / slo.tbt_ns
        loss = tolerance.added_loss(index, step).take(np.ceil(late).astype(np.int64), mode="clip")
        early = (late <= 0).nonzero()[0]
        if len(early):
            sooner = np.exp(late.take(early) / 2 ** (step / 2))
            loss[early] = sooner * tolerance.expected_loss(index, step)[1]
        found[mine] = loss * slo.importance + FLOOR
    return found


def by_class(slo_index: IntArray) -> list[tuple[int, IntArray | slice]]:
    """(class, which prompts are of it), of the classes there are."""
    there = np.bincount(slo_index).nonzero()[0].tolist()
    if len(there) == 1:
        return [(there[0], slice(None))]
    return [(index, np.flatnonzero(slo_index == index)) for index in there]


def most_overdue(prompts: Prompts, now_ns: int) -> int | None:
    """Index of the prompt furthest beyond PATIENCE times its allowance, None without one.

    What the ranking gives up as lost would otherwise wait as long as anybody else comes.
    """
    overdue = now_ns - prompts.due_ns - PATIENCE * (prompts.due_ns - prompts.arrival_ns)
    worst = int(np.argmax(overdue))
    return worst if overdue[worst] > 0 else None


def claims_memory(prompts: Prompts, at: int, now_ns: int) -> bool:
    """Whether the prompt at this place is late by LAST_PATIENCE times its allowance."""
    due_ns = int(prompts.due_ns[at])
    return now_ns - due_ns > LAST_PATIENCE * (due_ns - int(prompts.arrival_ns[at]))
