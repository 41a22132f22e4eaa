"""What a live check concludes from predicted and measured capacities."""

from __future__ import annotations

import pytest

from sarathi_plugin.search.capacity import Capacity, Verdict
from sarathi_plugin.search.repeats import Repeated
from sarathi_plugin.search.search_text import verification
from sarathi_plugin.search.verify import conclusion


def live(*rates: float) -> Repeated:
    """Capacities found to 5 %."""
    return Repeated(
        tuple(
            Capacity(rate, (Verdict(rate, True, 1, 0), Verdict(rate * 1.05, False, 0.9, None, "late")))
            for rate in rates
        ),
        0.05,
    )


def test_a_prediction_inside_of_the_interval():
    found = conclusion([8.0, 10.0, 12.0], live(8.8, 11.0, 13.2))
    assert found["predicted"] == 10
    assert found["inside"] is True
    assert found["live_over_predicted"] == pytest.approx([1.1, 1.1, 1.1])
    assert verification(found) == (
        "Live, one replica: 11 requests/s (95 % 5.67 to 16.9); the predicted 10 is inside the interval. "
        "Seed by seed, live is 1.10 of it (95 % 1.10 to 1.10)."
    )


def test_a_prediction_outside_of_it():
    found = conclusion([14.0, 14.0, 14.0], live(10.0, 10.1, 9.9))
    assert found["inside"] is False
    assert "the predicted 14 is outside the interval." in verification(found)


def test_one_repeat_shows_no_interval():
    found = conclusion([9.0], live(10.0))
    assert (found["inside"], found["live_over_predicted"]) == (None, None)
    assert "(one repeat, so no interval)" in verification(found)


def test_a_seed_that_was_predicted_nothing_gives_no_ratio():
    assert conclusion([0.0, 9.0], live(1.0, 9.0))["live_over_predicted"] is None
