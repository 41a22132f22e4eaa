"""What a prompt loses by waiting, and who is helped out of turn."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from sarathi_plugin.core import NS_PER_MS, RequestRow, StepView
from sarathi_plugin.policies.urgency import FLOOR, loss_if_delayed, most_overdue, newly_late, work_of
from sarathi_plugin.tolerance import RECENT, Tolerance
from tests.unit.policies.views import (
    CLASSES,
    INTERACTIVE,
    NOW,
    STANDARD,
    LinearModel,
    make_row,
    make_view,
    prompts_of,
)

WAIT_NS = 500.0 * NS_PER_MS


def losses(*rows: object, lengths: tuple[int, ...] = (100, 200, 400), wait_ns: float = WAIT_NS) -> np.ndarray:
    tolerance = Tolerance(CLASSES)
    for index in range(len(CLASSES)):
        for _ in range(2 * RECENT // len(lengths)):
            for length in lengths:
                tolerance.note(index, length)
    prompts = prompts_of(rows, CLASSES)
    return loss_if_delayed(prompts, prompts.left_tokens * 0.1 * NS_PER_MS, NOW, wait_ns, tolerance)


def test_before_its_due_time_a_prompt_loses_more_the_nearer_it_is():
    found = losses(*[make_row(due_ms=due) for due in (110, 300, 1000, 5000)], wait_ns=4e8)
    assert (np.diff(found) < 0).all()
    assert found[0] / found[2] == pytest.approx(np.exp(890 / 400), rel=0.01)


def test_due_is_when_its_own_work_must_begin():
    long, short = losses(make_row(tokens=3000, due_ms=400), make_row(tokens=1000, due_ms=200))
    assert long == pytest.approx(short)  # both must begin in 100 ms


def test_the_loss_is_greatest_where_answers_begin_to_be_lost():
    """100 tokens forgive eleven misses of 100 ms: waiting costs most just before that, and less beyond 400 tokens."""
    on_time, near, past_all = losses(
        make_row(tokens=1, due_ms=1), make_row(tokens=1, due_ms=-1050), make_row(tokens=1, due_ms=-9000)
    )
    assert near > 2 * on_time
    assert past_all == pytest.approx(FLOOR)


def test_short_answers_make_a_class_more_urgent():
    row = make_row(tokens=100, due_ms=-200)
    assert losses(row, lengths=(10, 20, 40)) > 3 * losses(row, lengths=(1000, 2000))


def test_importance_scales_the_loss():
    from dataclasses import replace

    classes = [STANDARD, replace(STANDARD, name="dear", importance=3.0)]
    prompts = prompts_of([make_row(slo=slo) for slo in classes], classes)
    plain, dear = loss_if_delayed(prompts, np.full(2, 1e6), NOW, WAIT_NS, Tolerance(classes)) - FLOOR
    assert dear == pytest.approx(3 * plain)


def test_classes_are_judged_by_their_own_period():
    standard, interactive = losses(make_row(due_ms=-300), make_row(due_ms=-300, slo=INTERACTIVE), wait_ns=1e8)
    assert interactive > standard  # the same time is twice as many misses


@pytest.mark.parametrize("wait_ns", [1.0, 1e6, 1e9, 1e15])
def test_any_wait_gives_a_positive_finite_loss(wait_ns: float):
    found = losses(*[make_row(due_ms=due) for due in (-1e7, -1, 0, 1, 1e7)], wait_ns=wait_ns)
    assert np.isfinite(found).all()
    assert (found >= FLOOR).all()


# Allowed 200 ms each; late by 790, 801 and 2000 ms, and one that is not due.
QUEUE = [
    make_row("patient", arrived_ms=-990, due_ms=-790),
    make_row("over", arrived_ms=-1001, due_ms=-801),
    make_row("far over", arrived_ms=-2200, due_ms=-2000),
    make_row("early", arrived_ms=-10, due_ms=190),
]


def test_the_furthest_beyond_patience_is_found():
    assert most_overdue(prompts_of(QUEUE, CLASSES), NOW) == 2
    assert most_overdue(prompts_of(QUEUE[:2], CLASSES), NOW) == 1


def test_within_patience_nobody_is_helped():
    assert most_overdue(prompts_of([QUEUE[0], QUEUE[3]], CLASSES), NOW) is None


def test_each_first_token_is_newly_late_once():
    prompts = prompts_of([make_row(str(due), due_ms=due) for due in (-790, -20, -10, 0, 5, 190)], CLASSES)
    moments = [NOW + ms * NS_PER_MS for ms in (-20, -10, 0, 6)]
    assert [newly_late(prompts, *span) for span in pairwise(moments)] == [1, 1, 1]
    assert newly_late(prompts, NOW, NOW) == 0


def test_classes_side_by_side_lose_what_each_alone_would_lose():
    standard = [make_row("late", due_ms=-300), make_row("early", due_ms=300)]
    interactive = [make_row("other", slo=INTERACTIVE, due_ms=-300)]
    apart = [*losses(*standard), *losses(*interactive)]
    mixed = losses(standard[0], interactive[0], standard[1])
    assert mixed[[0, 2, 1]] == pytest.approx(apart)


TEN = [100.0] * 10
"""Decodes that take 20 ms by themselves, each within 100 ms."""


def work(view: StepView, rows: list[RequestRow]) -> np.ndarray:
    return work_of(view, prompts_of(rows, CLASSES), view.model.predict_ns(view.decode_shape))


def test_work_counts_attention_and_what_decodes_take_of_every_step():
    rows = [make_row("a", tokens=1000, computed=500), make_row("b", tokens=1000)]
    unhindered = work(make_view((), rows[:1], rows[1:]), rows)
    assert unhindered / NS_PER_MS == pytest.approx([50, 100])
    beside = work(make_view(TEN, rows[:1], rows[1:]), rows)
    assert beside / NS_PER_MS == pytest.approx([50 / 0.8, 100 / 0.8])
    steep = LinearModel(pair_ms=1e-4)
    looked = work(make_view((), rows[:1], rows[1:], model=steep), rows)
    assert looked / NS_PER_MS == pytest.approx([50 + 37.5, 100 + 50])
    both = work(make_view(TEN, rows[:1], rows[1:], model=steep), rows)
    assert both / NS_PER_MS == pytest.approx([87.5 / 0.8, 150 / 0.8])


def test_decodes_that_leave_no_room_do_not_make_work_endless():
    rows = [make_row("a")]
    crowd = work(make_view([100.0] * 200, (), rows), rows)
    assert crowd / NS_PER_MS == pytest.approx([1000])
