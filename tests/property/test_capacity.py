"""A capacity search with a monotone judge ends just below its threshold."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from sarathi_plugin.search.capacity import Verdict, find_capacity

RATES = st.floats(1e-3, 1e5)


@settings(max_examples=300, deadline=None)
@given(
    threshold=RATES,
    bounds=st.lists(RATES, min_size=3, max_size=3).map(sorted),
    resolution=st.floats(0.001, 1),
    step=st.floats(1.01, 20),
)
def test_the_result_is_within_the_resolution_below_the_threshold(
    threshold: float, bounds: list[float], resolution: float, step: float
):
    lowest, start, highest = bounds
    found = find_capacity(
        lambda rate: Verdict(rate, rate <= threshold, 1.0, 0),
        start=start,
        lowest=lowest,
        highest=highest,
        resolution=resolution,
        step=step,
    )
    if threshold < lowest:
        assert found.rate == 0
    elif threshold >= highest:
        assert found.rate == highest
    else:
        assert lowest <= found.rate <= threshold < found.rate * (1 + resolution) * (1 + 1e-9)
    assert all(lowest <= verdict.rate <= highest for verdict in found.tried)
    # Ever larger strides, then halves of a bracket in logarithms: no more than logarithms of both.
    span = math.log(highest / lowest) + 1e-9
    strides = 3 + math.log2(1 + span / math.log(step))
    halves = 1 + max(0.0, math.log2(span / math.log1p(resolution)))
    assert len(found.tried) <= strides + halves
