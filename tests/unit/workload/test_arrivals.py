import numpy as np
import pytest
from pydantic import ValidationError

from sarathi_plugin.config import ConfigError
from sarathi_plugin.workload import Constant, Diurnal, Gamma, Poisson, Ramp, Step, arrival_times
from sarathi_plugin.workload.arrivals import Streams

COUNT = 40_000
PROCESSES = [
    Poisson(),
    Constant(),
    Gamma(cv=3),
    Gamma(cv=0.5),
    Ramp(start=1, end=4),
    Ramp(start=3, end=0.5),
    Ramp(start=1, end=1),
    Step(levels=(1, 3, 1)),
    Diurnal(),
    Diurnal(amplitude=1, cycles=10),
]


def unit_times(process, count=COUNT, seed=0):
    return process.unit_times(count, np.random.default_rng(seed))


def rate_between(times, start, end):
    """Arrivals a unit of time in this part of the run."""
    return ((times >= start * COUNT) & (times < end * COUNT)).sum() / ((end - start) * COUNT)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_the_mean_rate_is_one_and_times_ascend(process):
    times = unit_times(process)
    assert len(times) == COUNT
    assert times[0] >= 0
    assert (np.diff(times) >= 0).all()
    assert times[-1] / COUNT == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_a_rate_only_scales_the_pattern(process):
    slow = arrival_times(process, 0.5, 500, np.random.default_rng(1))
    fast = arrival_times(process, 8, 500, np.random.default_rng(1))
    assert slow == pytest.approx([t * 16 for t in fast], abs=16)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gamma_gaps_vary_as_asked(cv):
    gaps = np.diff(unit_times(Gamma(cv=cv)))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_a_ramp_runs_in_a_straight_line():
    times = unit_times(Ramp(start=1, end=4))
    # 1 to 4 with a mean of one: from 0.4 to 1.6.
    assert rate_between(times, 0, 0.02) == pytest.approx(0.4, abs=0.05)
    assert rate_between(times, 0.49, 0.51) == pytest.approx(1.0, abs=0.1)
    assert rate_between(times, 0.95, 0.97) == pytest.approx(1.55, abs=0.12)


@pytest.mark.parametrize(
    ("process", "last"),
    [(Ramp(start=1, end=4), 1.6), (Ramp(start=3, end=1), 0.5), (Step(levels=(1, 4)), 1.6)],
)
def test_the_last_rate_stays_when_requests_come_late(process, last):
    class Late:
        """A generator whose gaps are twice too long."""

        @staticmethod
        def exponential(scale, count):
            return np.full(count, 2.0 * scale)

    times = process.unit_times(100, Late())
    assert times[50] > 99
    assert np.diff(times[51:]) == pytest.approx(2 / last)


def test_steps_have_their_levels():
    times = unit_times(Step(levels=(1, 3, 2)))
    for stage, rate in enumerate((0.5, 1.5, 1.0)):
        assert rate_between(times, stage / 3, (stage + 1) / 3 - 0.02) == pytest.approx(rate, rel=0.05)


def test_a_day_has_its_peak_and_its_trough():
    times = unit_times(Diurnal(amplitude=0.8, cycles=2))
    for cycle in (0, 0.5):
        assert rate_between(times, cycle + 0.115, cycle + 0.135) == pytest.approx(1.8, rel=0.1)
        assert rate_between(times, cycle + 0.365, cycle + 0.385) == pytest.approx(0.2, rel=0.25)


def test_no_swing_is_poisson():
    assert unit_times(Diurnal(amplitude=0), 500) == pytest.approx(unit_times(Poisson(), 500))
    assert unit_times(Ramp(start=2, end=2), 500) == pytest.approx(unit_times(Poisson(), 500))
    assert unit_times(Step(levels=(5,)), 500) == pytest.approx(unit_times(Poisson(), 500))


@pytest.mark.parametrize(
    ("process", "settings"),
    [
        (Gamma, {"cv": 0}),
        (Gamma, {"cv": 1e-200}),
        (Ramp, {"start": 0}),
        (Ramp, {"end": -1}),
        (Step, {"levels": ()}),
        (Step, {"levels": (1, 0)}),
        (Diurnal, {"amplitude": 1.1}),
        (Diurnal, {"cycles": 0}),
        (Poisson, {"cv": 1}),
    ],
)
def test_bad_processes(process, settings):
    with pytest.raises(ValidationError):
        process(**settings)


def test_infinite_rate():
    with pytest.raises(ConfigError, match="above zero"):
        arrival_times(Poisson(), float("inf"), 1, np.random.default_rng())


def test_streams_are_independent_and_seeded():
    draws = [rng.random() for rng in Streams.of(3)]
    assert draws == [rng.random() for rng in Streams.of(3)]
    assert len({*draws, *(rng.random() for rng in Streams.of(4))}) == 8
    with pytest.raises(ConfigError, match="seed must not be negative"):
        Streams.of(-1)


@pytest.mark.parametrize("process", [Poisson(), Ramp(start=1e-300, end=1e-300), Ramp(start=1e308, end=1e308)])
@pytest.mark.parametrize("rate", [1e-300, 5e-324, 1e-12])
def test_times_beyond_a_life_are_refused(process, rate):
    with pytest.raises(
        ConfigError, match=r"10 requests at .* a second take more than 100 years to arrive: raise"
    ):
        arrival_times(process, rate, 10, np.random.default_rng(0))
