"""Which prompt goes first: expected loss if it waits, per second of work. Pure functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.policies.sizing import predicted

if TYPE_CHECKING:
    from sarathi_plugin.core import Prompts, StepView
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
    share = max(LEAST_SHARE, 1 - alone_ns / view.min_decode_tbt_ns) if view.decodes else 1.0
    # In place: with a thousand prompts every array operation costs several microseconds.
    work: FloatArray = prompts.left_tokens / 2
    work += prompts.context_tokens
    work *= (steep - flat) / pairs / share
    work += (flat - alone_ns) / SAMPLE / share
    work *= prompts.left_tokens
    return np.maximum(work, 1.0, out=work)


def loss_if_delayed(
    prompts: Prompts, work_ns: FloatArray, now_ns: int, wait_ns: float, tolerance: Tolerance
) -> FloatArray:
    """Expected importance each prompt loses when others go first for a while; shape (n,), positive.

    work_ns: time to its first token if it went alone from now on, shape (n,). The further wait is exponential with
    mean ``wait_ns``. Before its due time a prompt loses by the share of such waits that would make it late (the
    look-ahead of the Apparent Tardiness Cost rule, Vepsalainen and Morton 1987); after it, by the share of answers too
    short to forgive the misses added.
    """
    late_ns = now_ns - prompts.due_ns + work_ns
    there = np.bincount(prompts.slo_index).nonzero()[0].tolist()
    if len(there) == 1:
        return _loss_of_class(late_ns, there[0], wait_ns, tolerance)
    found = np.empty(len(work_ns))
    for index in there:
        mine = (prompts.slo_index == index).nonzero()[0]
        found[mine] = _loss_of_class(late_ns.take(mine), index, wait_ns, tolerance)
    return found


def _loss_of_class(late: FloatArray, index: int, wait_ns: float, tolerance: Tolerance) -> FloatArray:
    """``loss_if_delayed`` of prompts of one class. late: nanoseconds, negative before due; written over."""
    slo = tolerance.slos[index]
    step = int(min(max(round(2 * math.log2(wait_ns / slo.tbt_ns)), OCTAVES[0]), OCTAVES[1]))
    late /= slo.tbt_ns
    loss = tolerance.added_loss(index, step).take(np.ceil(late).astype(np.int64), mode="clip")
    early = (late <= 0).nonzero()[0]
    if len(early):
        sooner = np.exp(late.take(early) / 2 ** (step / 2))
        loss[early] = sooner * tolerance.expected_loss(index, step)[1]
    loss *= slo.importance
    loss += FLOOR
    return loss


def most_overdue(prompts: Prompts, now_ns: int) -> int | None:
    """Index of the prompt furthest beyond PATIENCE times its allowance, None without one.

    What the ranking gives up as lost would otherwise wait as long as anybody else comes.
    """
    turn_ns = prompts.due_ns - prompts.arrival_ns
    turn_ns *= PATIENCE
    turn_ns += prompts.due_ns
    first = int(turn_ns.argmin())
    return first if turn_ns[first] < now_ns else None


def claims_memory(prompts: Prompts, at: int, now_ns: int) -> bool:
    """Whether the prompt at this place is late by LAST_PATIENCE times its allowance."""
    due_ns = int(prompts.due_ns[at])
    return now_ns - due_ns > LAST_PATIENCE * (due_ns - int(prompts.arrival_ns[at]))


def newly_late(prompts: Prompts, previous_ns: int, now_ns: int) -> int:
    """How many first tokens were due after the moment before, and by now."""
    late_ns = now_ns - prompts.due_ns
    # What is not due yet is negative, which without a sign is more than any time: one comparison instead of two.
    return int(np.count_nonzero(late_ns.view(np.uint64) < max(0, now_ns - previous_ns)))
