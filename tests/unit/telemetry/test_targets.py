"""The live acceptance curve and the rate that it promises."""

from __future__ import annotations

import numpy as np
import pytest

from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.telemetry.snapshot import Snapshot
from sarathi_plugin.telemetry.table import RequestTable
from sarathi_plugin.telemetry.targets import WINDOW, TargetTable
from tests.unit.telemetry.scene import FAST, at

TARGETS_MS = (20, 50, 100)


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Snapshot.private()


class Judge:
    """Serves one request after the other and judges each."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.table = RequestTable([FAST], PrefillCurve(0, 0, 0), snapshot)
        self.targets = TargetTable([ms * NS_PER_MS for ms in TARGETS_MS])

    def serve(self, gaps_ms: list[float], status: str = "finished", left_ms: float = 0) -> list[bool]:
        """Whether a request with these gaps is fluid at each target; it leaves ``left_ms`` after its last token."""
        row = self.table.add("a", FAST, at(0), 10, 99)
        now = 10.0
        for gap in [0, *gaps_ms]:
            now += gap
            self.targets.emit(self.table.emit(np.array([row.slot]), np.array([1]), at(now)))
        outcome = self.table.remove("a", status, at(now + left_ms))
        return [fluid for _, fluid in self.targets.judge(outcome)]


def test_a_gap_of_exactly_the_target_is_in_time_and_a_nanosecond_more_is_not(snapshot: Snapshot):
    judge = Judge(snapshot)
    assert judge.serve([20]) == [True, True, True]
    assert judge.serve([20 + 1e-6]) == [False, True, True]
    assert judge.serve([50]) == [False, True, True]
    assert judge.serve([50 + 1e-6]) == [False, False, True]


def test_slack_counts_at_every_target(snapshot: Snapshot):
    judge = Judge(snapshot)
    assert judge.serve([10, 10, 10, 50]) == [True, True, True]
    assert judge.serve([10, 10, 10, 51]) == [False, True, True]


def test_a_request_that_was_aborted_is_charged_at_every_target(snapshot: Snapshot):
    judge = Judge(snapshot)
    assert judge.serve([10], "aborted", left_ms=30) == [True, True, True]
    assert judge.serve([10], "aborted", left_ms=31) == [False, True, True]


def test_a_place_taken_over_starts_from_nothing(snapshot: Snapshot):
    judge = Judge(snapshot)
    assert judge.serve([5000]) == [False, False, False]
    assert judge.serve([20]) == [True, True, True]
    assert len(judge.table._by_slot) == 1


def test_the_rate_is_that_of_the_smallest_target_that_99_of_100_reach(snapshot: Snapshot):
    judge = Judge(snapshot)
    assert judge.targets.fluid_token_rate == 0
    for _ in range(99):
        judge.serve([20])
    assert judge.targets.fluid_token_rate == 50
    judge.serve([60])
    assert judge.targets.fluid_token_rate == 50
    judge.serve([60])
    assert judge.targets.fluid_token_rate == 10
    for _ in range(3):
        judge.serve([5000])
    assert judge.targets.fluid_token_rate == 0


def test_the_rate_forgets_what_is_long_past(snapshot: Snapshot):
    judge = Judge(snapshot)
    judge.serve([5000])
    for _ in range(WINDOW):
        judge.serve([20])
    assert judge.targets.fluid_token_rate == 50
    assert all(all(fluid) for fluid in judge.targets._recent)
