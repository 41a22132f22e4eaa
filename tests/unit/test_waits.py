"""How long first tokens usually take."""

from __future__ import annotations

from sarathi_plugin.waits import RECENT, Waits


def test_before_any_nothing_is_usual():
    assert (Waits().usual_ns, Waits().share_within(5)) == (0, 1)


def test_nine_of_ten_come_within_what_is_usual():
    waits = Waits()
    for wait in range(1, 11):
        waits.note(wait)
    assert waits.usual_ns == 9


def test_how_many_came_sooner():
    waits = Waits()
    for wait in (10, 20, 20, 40):
        waits.note(wait)
    assert [waits.share_within(wait) for wait in (10, 20.5, 1000)] == [0, 0.75, 1]


def test_what_was_long_ago_is_forgotten():
    waits = Waits()
    for wait in [1000] * RECENT + [5] * RECENT:
        waits.note(wait)
    assert waits.usual_ns == 5
