"""The fewest replicas that carry a load."""

from __future__ import annotations

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.search.capacity import Verdict
from sarathi_plugin.search.replicas import find_replicas


@pytest.mark.parametrize("needed", range(1, 41))
def test_the_fewest_that_pass_are_found_in_few_runs(needed: int):
    asked: list[int] = []

    def judge(replicas: int) -> Verdict:
        asked.append(replicas)
        return Verdict(
            1.0, replicas >= needed, 1.0, 0, "" if replicas >= needed else f"{replicas} are too few"
        )

    found, reason = find_replicas(judge, most=64)
    assert found == needed
    assert reason == (f"{needed - 1} are too few" if needed > 1 else "")
    assert len(set(asked)) == len(asked) <= 2 + 2 * needed.bit_length()


def test_too_many_needed_is_said_with_the_reason():
    found = find_replicas(lambda n: Verdict(1.0, False, 0.5, None, f"{n} are too few"), most=10)
    assert found == (None, "10 are too few")


def test_bad_bounds_are_refused():
    with pytest.raises(ConfigError, match="not 3 and 2"):
        find_replicas(lambda _: Verdict(1.0, True, 1, 0), most=2, start=3)
