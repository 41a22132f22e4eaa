"""How long first tokens usually take."""

from __future__ import annotations

from sarathi_plugin.waits import RECENT, Waits


def test_before_any_nothing_is_usual():
    assert (Waits().usual_ns, Waits().rare_ns) == (0, 0)


def test_nine_of_ten_come_within_what_is_usual():
    waits = Waits()
    for wait in range(1, 11):
        waits.note(wait)
    assert waits.usual_ns == 9


def test_two_in_a_hundred_are_rare():
    for long, rare in ((1, 5), (3, 1000)):
        waits = Waits()
        for wait in ([5] * (100 - long) + [1000] * long) * 10:
            waits.note(wait)
        assert (waits.usual_ns, waits.rare_ns) == (5, rare)


def test_what_was_long_ago_is_forgotten():
    waits = Waits()
    for wait in [1000] * RECENT + [5] * RECENT:
        waits.note(wait)
    assert waits.usual_ns == 5
