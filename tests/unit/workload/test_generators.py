import numpy as np
import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.workload import (
    SHAREGPT,
    LengthDistribution,
    Message,
    ScheduledRequest,
    constant_arrivals,
    poisson_arrivals,
    synthetic_workload,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_poisson_keeps_its_rate_and_its_tail():
    times = np.array(poisson_arrivals(5.0, 20_000, rng()))
    gaps = np.diff(times) / NS_PER_S
    assert gaps.mean() == pytest.approx(0.2, rel=0.02)
    assert gaps.std() == pytest.approx(0.2, rel=0.03)
    assert gaps.max() > 0.2 * 8, "a cut tail raises the rate"
    assert (np.diff(times) >= 0).all()


def test_constant():
    assert constant_arrivals(4.0, 3) == [0, NS_PER_S // 4, NS_PER_S // 2]


@pytest.mark.parametrize(("rate", "count"), [(0, 1), (-1, 1), (float("nan"), 1), (1, 0)])
def test_bad_arrivals(rate, count):
    with pytest.raises(ConfigError):
        poisson_arrivals(rate, count, rng())
    with pytest.raises(ConfigError):
        constant_arrivals(rate, count)


@pytest.mark.parametrize("part", [SHAREGPT.prompt, SHAREGPT.output])
def test_lengths_have_the_published_median_and_p90(part):
    drawn = part.sample(50_000, rng())
    assert np.median(drawn) == pytest.approx(part.median, rel=0.02)
    assert np.percentile(drawn, 90) == pytest.approx(part.p90, rel=0.02)


def test_lengths_scale_then_clip():
    drawn = LengthDistribution(1000, 2000).sample(5000, rng(), scale=0.1, low=50, high=150)
    assert np.median(drawn) == pytest.approx(100, rel=0.05)
    assert (min(drawn), max(drawn)) == (50, 150)


def test_bad_lengths():
    with pytest.raises(ConfigError, match="0 < median < P90"):
        LengthDistribution(100, 100)


def test_synthetic_workload_is_seeded_and_fits_the_model():
    offsets = poisson_arrivals(5.0, 200, rng())
    one = synthetic_workload("w", offsets, rng(3), max_model_tokens=1024)
    assert one == synthetic_workload("w", offsets, rng(3), max_model_tokens=1024)
    assert one != synthetic_workload("w", offsets, rng(4), max_model_tokens=1024)
    for request in one.requests:
        assert request.prompt_tokens == len(request.prompt)
        assert request.prompt_tokens + request.max_tokens <= 1024
        assert request.max_tokens >= 2
    assert len({request.prompt[:4] for request in one.requests}) == 200


def test_kind_of_prompt():
    fields = {"request_id": "a", "offset_ns": 0, "max_tokens": 1}
    assert ScheduledRequest(prompt=(Message("user", "x"),), **fields).is_chat
    assert not ScheduledRequest(prompt="x", **fields).is_chat
    assert not ScheduledRequest(prompt=(1, 2), **fields).is_chat
    assert not ScheduledRequest(prompt=(), **fields).is_chat
