"""How much time a step may take, and how many prompt tokens fit into it: pure functions of view and model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.core import Chunk

if TYPE_CHECKING:
    from sarathi_plugin.core import SloMode, StepShape, StepTimeModel, StepView


def available_time_ns(view: StepView, slo: SloMode, stall_cap: float) -> int:
    """Time from the start of this step to the earliest deadline among its decodes, capped.

    The cap, ``stall_cap`` times the tightest D_d, keeps a stream that has banked much slack from freezing visibly.
    ``gap``: the tightest D_d itself. A decode that will be late even in a step of its own costs one miss
    until the next period begins, so that period's end is its deadline (Etalon counts whole periods).
    Needs ``view.decodes > 0``.
    """
    tbt_ns = view.min_decode_tbt_ns
    if slo == "gap":
        return tbt_ns
    slack = int(view.decode_deadline_ns.min()) - view.free_at_ns
    alone = view.model.predict_ns(view.decode_shape)
    if slack < alone:
        periods = -(-(alone - slack) // tbt_ns)
        slack += periods * tbt_ns
    return min(slack, round(stall_cap * tbt_ns))


def largest_chunk(model: StepTimeModel, shape: StepShape, context: int, limit: int, time_ns: int) -> int:
    """Most prompt tokens on top of ``context`` that keep the step within ``time_ns``; 0 to ``limit``.

    The prediction never falls as the chunk grows. It is nearly linear, so interpolation gets there in a few looks;
    every other look halves the interval, which bounds their number for any model.
    """

    def predict(tokens: int) -> int:
        return model.predict_ns(shape.with_chunk(Chunk(tokens, context)))

    low, at_low = 0, model.predict_ns(shape)
    high, at_high = limit, predict(limit) if limit > 0 else 0
    if limit <= 0 or at_high <= time_ns:
        return max(0, limit)
    halve = False
    while high - low > 1:
        guess = (low + high) // 2
        if not halve and at_low <= time_ns:
            guess = low + (time_ns - at_low) * (high - low) // max(1, at_high - at_low)
            guess = min(high - 1, max(low + 1, guess))
        took = predict(guess)
        if took <= time_ns:
            low, at_low = guess, took
        else:
            high, at_high = guess, took
        halve = not halve
    return low


def efficient_chunk(model: StepTimeModel, shape: StepShape, context: int, limit: int, share: float) -> int:
    """Smallest chunk whose own work is at least ``share`` of the step that carries it; at most ``limit``.

    Every step pays a fixed price; chunks far below this size spend most of the machine on it.
    """
    fits = largest_chunk(model, shape, context, limit, needed_time_ns(model, shape, share) - 1)
    return min(limit, fits + 1)


def needed_time_ns(model: StepTimeModel, shape: StepShape, share: float) -> int:
    """How long the step ``shape`` must become by added prompt tokens for these to be ``share`` of it."""
    return -int(-model.predict_ns(shape) // (1 - share))
