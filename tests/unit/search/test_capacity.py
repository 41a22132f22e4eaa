"""The capacity search and the verdict it rests on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.records import RequestTimeline
from sarathi_plugin.search.capacity import (
    Capacity,
    FailureCount,
    Verdict,
    find_capacity,
    judge_timelines,
)

GOOD = RequestTimeline(
    "a", "simulator", "standard", 0, None, 0, (5, 9), 9, "finished", 3, 10, 5, 20, "abc", met=10, missed=0
)
LATE = replace(GOOD, met=8, missed=2)


def below(threshold: float) -> Any:
    """A judge that passes up to a rate."""
    return lambda rate: Verdict(rate, rate <= threshold, 1.0, 0, "" if rate <= threshold else f"at {rate}")


def search(threshold: float, **changes: Any) -> Capacity:
    return find_capacity(below(threshold), **{"start": 10, "lowest": 0.1, "highest": 1000, **changes})


def timelines(good: int, late: int = 0, **changes: Any) -> list[RequestTimeline]:
    return [replace(one, **changes) for one in [GOOD] * good + [LATE] * late]


@pytest.mark.parametrize("threshold", [0.1, 0.15, 1, 9.99, 10, 10.1, 13, 77, 900, 999.9])
@pytest.mark.parametrize("resolution", [0.001, 0.02, 0.5])
def test_the_highest_passing_rate_is_found_within_the_resolution(threshold: float, resolution: float):
    found = search(threshold, resolution=resolution)
    assert found.rate <= threshold < found.rate * (1 + resolution) * (1 + 1e-12)


def test_the_rate_found_was_tried_and_passed_and_so_was_one_just_above_that_failed():
    found = search(42)
    verdicts = {verdict.rate: verdict.passed for verdict in found.tried}
    assert verdicts[found.rate]
    above = min(rate for rate in verdicts if rate > found.rate)
    assert not verdicts[above]
    assert above <= found.rate * 1.02


def test_nothing_passes():
    found = search(0.05)
    assert found.rate == 0
    assert min(verdict.rate for verdict in found.tried) == 0.1
    assert not any(verdict.passed for verdict in found.tried)
    assert found.limit == "at 0.1"


def test_everything_passes():
    found = search(1e9)
    assert found.rate == 1000 == found.tried[-1].rate
    assert all(verdict.passed for verdict in found.tried)
    assert found.limit == ""


def test_a_range_of_one_rate_is_one_run():
    assert search(5, start=3, lowest=3, highest=3) == Capacity(3, (Verdict(3, True, 1.0, 0),))
    assert search(1, start=3, lowest=3, highest=3).rate == 0


@pytest.mark.parametrize(
    ("threshold", "runs"), [(10.5, 6), (9.5, 6), (60, 10), (1.1, 12), (1e9, 6), (0.01, 6)]
)
def test_runs_are_few(threshold: float, runs: int):
    assert len(search(threshold).tried) <= runs


def test_no_rate_is_tried_twice_or_out_of_range():
    for threshold in (0.01, 0.2, 3, 10, 500, 2000):
        rates = [verdict.rate for verdict in search(threshold).tried]
        assert len(set(rates)) == len(rates)
        assert all(0.1 <= rate <= 1000 for rate in rates)
        assert rates[0] == 10


def test_a_judge_that_is_not_monotone_gives_one_of_its_boundaries():
    def judge(rate: float) -> Verdict:
        passed = rate < 12 or 16 < rate < 30
        return Verdict(rate, passed, 1.0, 0)

    found = find_capacity(judge, start=10, lowest=1, highest=100)
    assert found.rate == pytest.approx(12, rel=0.02) or found.rate == pytest.approx(30, rel=0.02)
    assert judge(found.rate).passed


RANGE = "A capacity search needs 0 < lowest <= start <= highest, not "
STEPS = "A capacity search needs resolution > 0 and step > 1, not "
NAN = float("nan")
BAD = {
    "lowest of zero": ({"lowest": 0}, f"{RANGE}0, 10, 1000."),
    "negative lowest": ({"lowest": -1}, f"{RANGE}-1, 10, 1000."),
    "start below the lowest": ({"start": 0.05}, f"{RANGE}0.1, 0.05, 1000."),
    "start above the highest": ({"start": 1001}, f"{RANGE}0.1, 1001, 1000."),
    "no number": ({"start": NAN}, f"{RANGE}0.1, nan, 1000."),
    "no resolution": ({"resolution": 0}, f"{STEPS}0, 1.3."),
    "negative resolution": ({"resolution": -0.1}, f"{STEPS}-0.1, 1.3."),
    "step that goes nowhere": ({"step": 1.0}, f"{STEPS}0.02, 1.0."),
    "step back": ({"step": 0.5}, f"{STEPS}0.02, 0.5."),
}


@pytest.mark.parametrize(("changes", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused_in_one_sentence(changes: dict[str, float], sentence: str):
    with pytest.raises(ConfigError) as caught:
        search(5, **changes)
    assert str(caught.value) == sentence


def test_the_limit_is_what_broke_at_the_lowest_rate_that_failed():
    tried = (Verdict(8, False, 0, 0, "far"), Verdict(2, True, 1, 0), Verdict(4, False, 0, 0, "near"))
    assert Capacity(2, tried).limit == "near"
    assert Capacity(2, (Verdict(2, True, 1, 0),)).limit == ""


def test_a_run_passes_at_just_the_share():
    verdict = judge_timelines(3.0, timelines(99, 1))
    assert verdict == Verdict(3.0, True, 0.99, 0, "")
    failed = judge_timelines(3.0, timelines(98, 2))
    assert failed == Verdict(3.0, False, 0.98, 0, "standard: 98.0% fluid, later tokens late")
    assert judge_timelines(3.0, timelines(98, 2), share=0.98).passed


def test_the_worst_class_decides_however_small():
    run = timelines(1000) + timelines(9, 1, slo_class="batch")
    verdict = judge_timelines(1.0, run)
    assert not verdict.passed
    assert verdict.fluid_share == 0.9
    assert verdict.reason == "batch: 90.0% fluid, later tokens late"


@pytest.mark.parametrize("status", ["aborted", "error", "timeout"])
def test_a_request_that_failed_counts_against_whatever_it_met(status: Any):
    verdict = judge_timelines(1.0, timelines(97) + timelines(3, status=status))
    assert (verdict.passed, verdict.fluid_share) == (False, 0.97)


@pytest.mark.parametrize(("delay_ns", "reason"), [(2 * NS_PER_S, ""), (2_100_000_000, "median delay 2.1 s")])
def test_the_median_delay_is_at_most_two_seconds(delay_ns: int, reason: str):
    arrival = 7 * NS_PER_S
    run = timelines(3, arrival_ns=arrival, scheduled_ns=arrival + delay_ns) + timelines(2)
    verdict = judge_timelines(1.0, run)
    assert verdict.median_delay_ns == delay_ns
    assert verdict.reason == reason
    assert verdict.passed == (not reason)


def test_a_few_long_delays_do_not_move_the_median():
    run = timelines(2, scheduled_ns=99 * NS_PER_S) + timelines(3, scheduled_ns=5)
    assert judge_timelines(1.0, run).passed
    assert judge_timelines(1.0, run).median_delay_ns == 5


def test_requests_that_were_never_scheduled_have_no_delay():
    run = timelines(2, scheduled_ns=None) + timelines(1, scheduled_ns=5)
    assert judge_timelines(1.0, run).median_delay_ns == 5
    nobody = judge_timelines(1.0, timelines(2, scheduled_ns=None))
    assert (nobody.passed, nobody.median_delay_ns, nobody.reason) == (False, None, "no request was scheduled")


def test_a_run_that_was_stopped_never_passes():
    verdict = judge_timelines(1.0, timelines(5), complete=False)
    assert not verdict.passed
    assert verdict.reason


@pytest.mark.parametrize(("requests", "allowed"), [(50, 0), (99, 0), (100, 1), (199, 1), (700, 7)])
def test_a_run_has_lost_with_the_first_failure_beyond_the_share(requests: int, allowed: int):
    count = FailureCount(["a"] * requests)
    for _ in range(allowed):
        count.failed("a")
    assert not count.lost(Counter())
    count.failed("a")
    assert count.lost(Counter())


def test_failures_are_counted_by_class():
    count = FailureCount(["a"] * 100 + ["b"] * 100)
    count.failed("a")
    count.failed("b")
    assert not count.lost(Counter())
    count.failed("b")
    assert count.lost(Counter())


def test_hopeless_requests_count_as_long_as_they_are_hopeless():
    count = FailureCount(["a"] * 100 + ["b"] * 10)
    count.failed("a")
    assert count.lost(Counter(a=1))
    assert count.lost(Counter(b=1))
    assert not count.lost(Counter())


@pytest.mark.parametrize("failures", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("requests", [4, 7, 100, 150, 300, 333])
def test_a_run_is_lost_exactly_when_its_verdict_would_be_no(requests: int, failures: int):
    count = FailureCount(["standard"] * requests)
    for _ in range(failures):
        count.failed("standard")
    assert count.lost(Counter()) != judge_timelines(1.0, timelines(requests - failures, failures)).passed
