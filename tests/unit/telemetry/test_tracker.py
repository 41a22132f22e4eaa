"""Short scenes with every figure worked out by hand: what the tracker counts of tokens, requests and steps."""

from __future__ import annotations

import logging

import pytest

from sarathi_plugin.core import NS_PER_MS, SloClass, StepShape
from sarathi_plugin.telemetry.tracker import CALIBRATION_STEPS, MOST_LIMITS
from tests.unit.telemetry.scene import FAST, SLOW, Scene, at, make_record

# FAST: first token due 300 ms after arrival, then one per 50 ms. SLOW: 2 s, one per second, all within 1 s.


def test_a_stream_on_time():
    scene = Scene()
    scene.arrive("a", ms=0, scheduled_ms=40)
    for ms in (100, 150, 220):
        scene.emit(ms, "a")
    scene.leave(220, "a")
    found = scene.read()
    assert found.counter("deadlines_met", "fast") == 3
    assert found.counter("deadlines_missed", "fast") == 0
    assert found.counter("output_tokens", "fast") == 3
    assert found.counter("requests_finished", "fast", "finished") == 1
    assert found.counter("fluid_requests", "fast") == 1
    assert found.buckets("request_fluidity_index", "fast") == {1.0: 1}
    assert found.buckets("tbt_seconds", "fast") == {0.05: 1, 0.075: 1}
    assert found.total("tbt_seconds", "fast") == pytest.approx(0.12)
    assert found.buckets("ttft_seconds", "fast") == {0.1: 1}
    assert found.buckets("scheduling_delay_seconds", "fast") == {0.04: 1}
    assert found.buckets("prefill_delay_seconds", "fast") == {0.001: 1}
    assert found.total("prefill_delay_seconds", "fast") == 0
    assert found.buckets("stall_duration_seconds", "fast") == {}
    assert ("completion_deadlines_met", "fast") not in found.counters


def test_a_stall_costs_every_period_it_lasts():
    scene = Scene()
    scene.arrive("a")
    scene.emit(100, "a")  # the next is due at 350
    scene.emit(700, "a")  # 350 late: 8 periods of 50
    scene.leave(700, "a")
    found = scene.read()
    assert found.counter("deadlines_met", "fast") == 1
    assert found.counter("deadlines_missed", "fast") == 8
    assert found.counter("output_tokens", "fast") == 2
    assert found.counter("stall_seconds", "fast") == pytest.approx(0.35)
    assert found.buckets("stall_duration_seconds", "fast") == {0.4: 1}
    assert found.buckets("tbt_seconds", "fast") == {0.75: 1}
    assert found.buckets("request_fluidity_index", "fast") == {0.25: 1}  # 1 / 9
    assert found.counter("fluid_requests", "fast") == 0
    assert scene.snapshot.longest_stall_ns(at(800)) == 350 * NS_PER_MS


def test_a_late_first_token_is_a_delay_and_no_stall():
    scene = Scene()
    scene.arrive("a")
    scene.emit(450, "a")  # due at 300: 4 periods
    found = scene.read()
    assert found.counter("deadlines_missed", "fast") == 4
    assert found.counter("deadlines_met", "fast") == 0
    assert found.buckets("prefill_delay_seconds", "fast") == {0.15: 1}
    assert found.buckets("tbt_seconds", "fast") == {}
    assert found.counter("stall_seconds", "fast") == 0
    assert scene.snapshot.longest_stall_ns(at(500)) == 0


def test_classes_in_one_step_are_counted_apart():
    scene = Scene()
    scene.arrive("a", FAST)
    scene.arrive("b", SLOW)
    scene.arrive("c", FAST)
    scene.emit(100, "a b")
    scene.emit(400, "a b c")  # a is 50 late, its first two periods are missed; c's first token is 100 late: 3
    found = scene.read()
    assert found.counter("deadlines_met", "fast") == 1
    assert found.counter("deadlines_missed", "fast") == 2 + 3
    assert found.counter("output_tokens", "fast") == 3
    assert found.counter("deadlines_met", "slow") == 2
    assert found.counter("deadlines_missed", "slow") == 0
    assert found.counter("output_tokens", "slow") == 2
    assert found.buckets("tbt_seconds", "fast") == found.buckets("tbt_seconds", "slow") == {0.3: 1}
    assert found.buckets("prefill_delay_seconds", "fast") == {0.001: 1, 0.1: 1}
    assert found.buckets("prefill_delay_seconds", "slow") == {0.001: 1}
    assert found.buckets("stall_duration_seconds", "fast") == {0.05: 1}
    assert found.buckets("stall_duration_seconds", "slow") == {}


def test_first_and_further_tokens_of_one_class_in_one_step():
    scene = Scene()
    scene.arrive("a")
    scene.arrive("b")
    scene.emit(100, "a")
    scene.emit(160, "a b")
    found = scene.read()
    assert found.buckets("tbt_seconds", "fast") == {0.075: 1}
    assert found.buckets("prefill_delay_seconds", "fast") == {0.001: 2}
    assert found.counter("deadlines_met", "fast") == 3


def test_a_bundle_is_one_gap_and_zeros():
    scene = Scene()
    scene.arrive("a")
    scene.emit(100, {"a": 2})
    scene.emit(500, {"a": 4})  # due at 400: 100 late, 3 periods; three of the four are on time
    found = scene.read()
    assert found.counter("output_tokens", "fast") == 6
    assert found.counter("deadlines_met", "fast") == 2 + 3
    assert found.counter("deadlines_missed", "fast") == 3
    assert found.buckets("tbt_seconds", "fast") == {0.001: 1 + 3, 0.4: 1}
    assert found.total("tbt_seconds", "fast") == pytest.approx(0.4)


def test_a_steady_batch_is_counted_as_its_streams_one_by_one():
    scene = Scene()
    for name in "abc":
        scene.arrive(name)
    scene.emit(100, "a b c")
    scene.read()
    scene.emit(150, "a b c")
    scene.emit(201, {"a": 2, "b": 1, "c": 1})
    found = scene.read()
    assert found.buckets("tbt_seconds", "fast") == {0.05: 3, 0.075: 3, 0.001: 1}
    assert found.total("tbt_seconds", "fast") == pytest.approx(3 * 0.05 + 3 * 0.051)


def test_streams_of_one_step_that_stall_are_each_counted():
    scene = Scene()
    for name in "abc":
        scene.arrive(name)
    scene.emit(100, "a b")
    scene.emit(300, {"c": 2})
    scene.emit(360, "a b c")  # a and b are 10 late, c is not
    found = scene.read()
    assert found.counter("deadlines_missed", "fast") == 2
    assert found.counter("deadlines_met", "fast") == 5
    assert found.buckets("stall_duration_seconds", "fast") == {0.01: 2}


def test_a_policy_that_puts_numbers_into_its_limits_does_not_make_a_series_of_each():
    scene = Scene()
    for number in range(200):
        scene.step(make_record(StepShape(1, 1, 1), limit=f"slack {number} ms"))
    scene.step(make_record(StepShape(1, 1, 1), limit="slack 0 ms"))
    found = scene.read()
    series = [key for key in found.counters if key[0] == "step_budget_limit"]
    assert len(series) == MOST_LIMITS + 1
    assert found.counter("step_budget_limit", "slack 0 ms") == 2
    assert found.counter("step_budget_limit", "other") == 200 - MOST_LIMITS


# -- the end of a request ----------------------------------------------------------------------------------------


def test_a_request_aborted_while_overdue_is_charged_up_to_the_abort():
    scene = Scene()
    scene.arrive("a")
    scene.emit(100, "a")
    scene.leave(470, "a", "aborted")  # due at 350: 120 late, 3 periods
    found = scene.read()
    assert found.counter("deadlines_met", "fast") == 1
    assert found.counter("deadlines_missed", "fast") == 3
    assert found.counter("requests_finished", "fast", "aborted") == 1
    assert found.counter("stall_seconds", "fast") == pytest.approx(0.12)
    assert found.buckets("stall_duration_seconds", "fast") == {0.15: 1}
    assert found.buckets("request_fluidity_index", "fast") == {0.25: 1}
    assert scene.snapshot.longest_stall_ns(at(500)) == 120 * NS_PER_MS


def test_a_request_aborted_before_its_first_token_missed_but_did_not_stall():
    scene = Scene()
    scene.arrive("a", scheduled_ms=20)
    scene.leave(320, "a", "aborted")
    found = scene.read()
    assert found.counter("deadlines_missed", "fast") == 1
    assert found.buckets("request_fluidity_index", "fast") == {0.1: 1}
    assert found.buckets("ttft_seconds", "fast") == {}
    assert found.buckets("scheduling_delay_seconds", "fast") == {0.02: 1}
    assert found.counter("stall_seconds", "fast") == 0


def test_a_request_aborted_in_time_missed_nothing():
    scene = Scene()
    scene.arrive("a")
    scene.emit(100, "a")
    scene.leave(349, "a", "aborted")
    found = scene.read()
    assert found.counter("deadlines_missed", "fast") == 0
    assert found.counter("fluid_requests", "fast") == 1
    assert found.buckets("scheduling_delay_seconds", "fast") == {}  # never known


@pytest.mark.parametrize(
    ("ms", "fluid", "bucket"),
    [(20, 1, 1.0), (300, 1, 1.0), (301, 0, 0.1)],
)
def test_who_leaves_before_anything_is_due_spends_nothing_of_the_error_budget(
    ms: float, fluid: int, bucket: float
):
    scene = Scene()
    scene.arrive("a", scheduled_ms=10)
    scene.leave(ms, "a", "aborted")  # the first token is due at 300
    found = scene.read()
    assert found.counter("requests_finished", "fast", "aborted") == 1
    assert found.counter("fluid_requests", "fast") == fluid
    assert found.buckets("request_fluidity_index", "fast") == {bucket: 1}


@pytest.mark.parametrize("tokens", [0, 20])
def test_a_request_that_ends_in_an_error_is_never_fluid(tokens: int):
    scene = Scene()
    scene.arrive("a")
    for number in range(tokens):
        scene.emit(100 + 50 * number, "a")
    scene.leave(100 + 50 * tokens, "a", "error")
    found = scene.read()
    assert found.counter("deadlines_met", "fast") == tokens
    assert found.counter("requests_finished", "fast", "error") == 1
    assert found.counter("fluid_requests", "fast") == 0


def test_a_request_that_finished_is_not_charged_for_a_token_that_was_never_due():
    scene = Scene()
    scene.arrive("a")
    scene.emit(100, "a")
    scene.leave(9000, "a")
    assert scene.read().counter("deadlines_missed", "fast") == 0


@pytest.mark.parametrize(
    ("met", "missed", "fluid", "bucket"),
    [(9, 1, 1, 0.9), (8, 1, 0, 0.9), (10, 1, 1, 0.95), (18, 2, 1, 0.9), (17, 2, 0, 0.9)],
)
def test_nine_deadlines_of_ten_are_fluid(met: int, missed: int, fluid: int, bucket: float):
    scene = Scene()
    scene.arrive("a")
    scene.emit(300, "a")  # exactly due
    now = 300.0
    for _ in range(met - 1):
        now += 50
        scene.emit(now, "a")
    for _ in range(missed):
        now += 51
        scene.emit(now, "a")
    scene.leave(now, "a")
    found = scene.read()
    assert (found.counter("deadlines_met", "fast"), found.counter("deadlines_missed", "fast")) == (
        met,
        missed,
    )
    assert found.counter("fluid_requests", "fast") == fluid
    assert found.buckets("request_fluidity_index", "fast") == {bucket: 1}


@pytest.mark.parametrize(
    ("last_ms", "status", "outcome"),
    [
        (1000, "finished", "met"),
        (1001, "finished", "missed"),
        (500, "aborted", "missed"),
        (500, "error", "missed"),
    ],
)
def test_a_completion_deadline_is_met_by_finishing_in_time(last_ms: float, status: str, outcome: str):
    scene = Scene()
    scene.arrive("b", SLOW)
    scene.emit(last_ms, "b")
    scene.leave(last_ms + 5000, "b", status)  # what counts is the last token
    found = scene.read()
    other = {"met": "missed", "missed": "met"}[outcome]
    assert found.counter(f"completion_deadlines_{outcome}", "slow") == 1
    assert found.counter(f"completion_deadlines_{other}", "slow") == 0


def test_scheduled_before_it_arrived_is_no_delay():
    scene = Scene()
    scene.arrive("a", ms=0, scheduled_ms=-3)
    scene.emit(10, "a")
    scene.leave(10, "a")
    assert scene.read().total("scheduling_delay_seconds", "fast") == 0


# -- other targets -----------------------------------------------------------------------------------------------


def test_every_request_is_judged_at_other_targets_too():
    scene = Scene(targets_ms=(25, 50, 62.5))
    scene.arrive("a")
    for ms in (5000, 5050, 5100):  # the first token, very late, is not judged
        scene.emit(ms, "a")
    scene.leave(5100, "a")
    found = scene.read()
    assert [found.counter("target_requests", t) for t in ("25", "50", "62.5")] == [1, 1, 1]
    assert [found.counter("target_fluid_requests", t) for t in ("25", "50", "62.5")] == [0, 1, 1]
    assert found.gauges["fluid_token_rate",] == pytest.approx(20)


def test_a_request_of_one_token_says_nothing_of_other_targets():
    scene = Scene()
    scene.arrive("a")
    scene.emit(100, "a")
    scene.leave(100, "a")
    found = scene.read()
    assert found.counter("target_requests", "50") == 0
    assert found.gauges["fluid_token_rate",] == 0


# -- steps -------------------------------------------------------------------------------------------------------

MIXED = StepShape(3, 5, 900, 200, 1e4)


def test_a_step_is_counted_by_its_kind():
    scene = Scene()
    scene.step(make_record(MIXED, ms=80, predicted_ns=60 * NS_PER_MS, budget=300, limit="slack"))
    found = scene.read()
    assert found.buckets("step_duration_seconds", "mixed") == {0.1: 1}
    assert found.counter("step_prefill_tokens", "mixed") == 200
    assert found.counter("step_decode_tokens", "mixed") == 5
    assert found.buckets("step_budget_tokens") == {512.0: 1}
    assert found.counter("step_budget_limit", "slack") == 1
    assert found.buckets("step_prediction_error_ratio", "mixed") == {0.3: 1}  # 20 of 80
    assert found.counter("step_predicted_seconds", "mixed") == pytest.approx(0.06)
    assert found.buckets("policy_seconds") == {0.00005: 1}
    assert found.counter("decodes_over_budget") == 0
    assert found.counter("policy_fallbacks") == 0


@pytest.mark.parametrize(
    ("shape", "kind"),
    [(StepShape(3, 3, 9), "decode"), (StepShape(0, 0, 0, 9, 1.0), "prefill"), (MIXED, "mixed")],
)
def test_every_kind_has_its_own_series(shape: StepShape, kind: str):
    scene = Scene()
    scene.step(make_record(shape))
    assert scene.read().buckets("step_duration_seconds", kind) == {0.02: 1}


def test_a_step_without_a_prediction_has_no_error():
    scene = Scene()
    scene.step(make_record(MIXED, predicted_ns=0))
    found = scene.read()
    assert found.buckets("step_prediction_error_ratio", "mixed") == {}
    assert found.counter("step_predicted_seconds", "mixed") == 0


def test_an_empty_step_counts_only_what_happened_in_it():
    scene = Scene()
    scene.step(make_record(StepShape(), preemptions=2, relegations=3))
    found = scene.read()
    assert found.counters == {("preemptions",): 2, ("relegations",): 3}
    assert found.buckets("policy_seconds") == {0.00005: 1}
    assert found.buckets("step_budget_tokens") == {}


def test_what_went_wrong_in_a_step_is_counted():
    scene = Scene()
    scene.step(make_record(MIXED, limit="decodes", fallback=True, preemptions=1))
    found = scene.read()
    assert found.counter("decodes_over_budget") == 1
    assert found.counter("step_budget_limit", "decodes") == 1
    assert found.counter("policy_fallbacks") == 1
    assert found.counter("preemptions") == 1


def test_a_target_below_the_fastest_decode_step_is_said_once_and_in_a_metric(
    caplog: pytest.LogCaptureFixture,
):
    scene = Scene()
    caplog.set_level(logging.WARNING)
    for _ in range(CALIBRATION_STEPS - 1):
        scene.step(make_record(StepShape(1, 1, 9), ms=80))
    scene.step(make_record(MIXED, ms=20))  # not a decode step
    assert not scene.read().gauges
    scene.step(make_record(StepShape(1, 1, 9), ms=60))
    assert scene.read().gauges == {
        ("target_below_decode_step", "fast"): 1,
        ("target_below_decode_step", "slow"): 0,
    }
    assert [record.getMessage() for record in caplog.records] == [
        "SLO class 'fast' allows 50.0 ms per token, but a decode step alone takes 60.0 ms on this engine: "
        "no scheduler can meet it."
    ]
    for _ in range(CALIBRATION_STEPS):
        scene.step(make_record(StepShape(1, 1, 9), ms=60))
    assert len(caplog.records) == 1
    for _ in range(CALIBRATION_STEPS):
        scene.step(make_record(StepShape(1, 1, 9), ms=50))
    assert scene.read().gauges["target_below_decode_step", "fast"] == 0


def test_a_request_that_cannot_be_tracked_costs_the_others_nothing():
    scene = Scene()
    scene.arrive("gone")
    scene.leave(10, "gone")  # its slot is free again
    for _ in range(2):
        with pytest.raises(OverflowError):
            scene.table.add("endless", SloClass("fast", 10**30, 0), at(20), 10, 99)
        with pytest.raises(OverflowError):
            scene.table.add("never", SloClass("fast", 1, 10**30), at(20), 10, 99)
        scene.arrive(f"a{len(scene.table.rows)}", ms=20)  # in the free slot, then in a new one
    assert list(scene.table.rows) == ["a0", "a1"]
    for slot, row in enumerate(scene.table.rows.values()):
        assert scene.table.row_at(slot) is row
    scene.emit(100, "a0 a1")
    scene.emit(390, "a0 a1")  # due at 370
    found = scene.read()
    assert (found.counter("deadlines_met", "fast"), found.counter("deadlines_missed", "fast")) == (2, 2)
