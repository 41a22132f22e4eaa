"""Which prompt goes first: expected loss if it waits, per second of work. Pure functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.tolerance import LATENESS

if TYPE_CHECKING:
    from sarathi_plugin.core import Prompts
    from sarathi_plugin.tolerance import FloatArray, Tolerance

OCTAVES = (-6, 24)
"""Mean further wait in periods, as powers of sqrt(2), between which the expected loss is worked out."""

FLOOR = 1e-6
"""Loss of what can hardly lose any more: lost, or long from due. Orders it by work, shortest first."""

PATIENCE = 4
"""A prompt that is late by this many times its own allowance has its turn in every AGEING-th step."""

AGEING = 16


def loss_if_delayed(
    prompts: Prompts, work_ns: FloatArray, now_ns: int, wait_ns: float, tolerance: Tolerance
) -> FloatArray:
    """Expected importance each prompt loses when others go first for a while; shape (n,), positive.

    work_ns: time to its first token if it went alone from now on, shape (n,). The further wait is exponential with
    mean ``wait_ns``. Before its due time a prompt loses by the share of such waits that would make it late (the
    look-ahead of the Apparent Tardiness Cost rule, Vepsalainen and Morton 1987); after it, by the share of answers too
    short to forgive the misses added.
    """
    late = (now_ns + work_ns - prompts.due_ns) / prompts.tbt_ns
    periods = np.minimum(np.maximum(np.ceil(late), 1), LATENESS - 1).astype(np.int64)
    found = np.empty(len(late))
    for index in range(tolerance.classes):
        mine = np.flatnonzero(prompts.slo_index == index)
        if not len(mine):
            continue
        waits = wait_ns / prompts.tbt_ns[mine[0]]  # a class has one D_d
        step = int(min(max(round(2 * math.log2(waits)), OCTAVES[0]), OCTAVES[1]))
        expected, lost = tolerance.expected_loss(index, step), tolerance.lost(index)
        k, x = periods[mine], late[mine]
        early = np.exp(np.minimum(x, 0) / 2 ** (step / 2))
        found[mine] = np.where(x > 0, expected[k] - lost[k], early * expected[1])
    return np.maximum(found, 0) * prompts.importance + FLOOR


def most_overdue(prompts: Prompts, now_ns: int) -> int | None:
    """Index of the prompt furthest beyond PATIENCE times its allowance, None without one.

    What the ranking gives up as lost would otherwise wait as long as anybody else comes.
    """
    overdue = now_ns - prompts.due_ns - PATIENCE * (prompts.due_ns - prompts.arrival_ns)
    worst = int(np.argmax(overdue))
    return worst if overdue[worst] > 0 else None
