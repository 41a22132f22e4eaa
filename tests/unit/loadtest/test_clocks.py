import numpy as np
import pytest

from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.loadtest.clocks import ClockBounds


def exchange(bounds, ahead_ns, there_ms, back_ms, now_ns=5 * NS_PER_S):
    """A question that took so long to get there, and so long to come back."""
    there_ns = now_ns + round(there_ms * NS_PER_MS)
    bounds.add(now_ns, there_ns + ahead_ns, there_ns + round(back_ms * NS_PER_MS))


@pytest.mark.parametrize("ahead_ns", [90_000 * NS_PER_S, -90_000 * NS_PER_S, 40 * NS_PER_MS])
def test_bounds_hold_the_truth_whatever_messages_take(ahead_ns):
    rng = np.random.default_rng(1)
    bounds = ClockBounds()
    errors = []
    for there_ms, back_ms in rng.exponential(5, (50, 2)):
        exchange(bounds, ahead_ns, there_ms, back_ms)
        assert bounds.low_ns <= ahead_ns <= bounds.high_ns
        assert abs(bounds.ahead_ns - ahead_ns) <= bounds.error_ns
        errors.append(bounds.error_ns)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 2 * NS_PER_MS


def test_quick_ways_count_each_on_its_own():
    bounds = ClockBounds()
    exchange(bounds, NS_PER_S, 1, 400)
    exchange(bounds, NS_PER_S, 300, 1)
    assert bounds.ahead_ns == NS_PER_S
    assert bounds.error_ns == NS_PER_MS


def test_one_clock_is_not_moved():
    bounds = ClockBounds()
    exchange(bounds, 0, 30, 2)
    assert bounds.ahead_ns == 0
    assert bounds.error_ns == 30 * NS_PER_MS
