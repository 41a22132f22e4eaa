"""A run that measured its client, or something else than was asked, is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sarathi_plugin.evaluate.validity import check
from tests.unit.evaluate.experiments import MS, timeline

GOOD = [timeline(f"r{i}", 100 * i, [300, 40, 40]) for i in range(100)]
WANTED = {t.request_id: (100, 3) for t in GOOD}


def test_a_good_run_is_valid():
    found = check(GOOD, WANTED, client_cpu=0.5)
    assert found.reasons == ()
    assert found.lag_limit_ms == 10  # a fifth of 50 ms


@pytest.mark.parametrize(("late_ms", "valid"), [(9, True), (11, False)])
def test_a_client_that_lags_measures_itself(late_ms: int, valid: bool):
    late = [replace(t, sent_ns=t.arrival_ns + late_ms * MS) for t in GOOD]
    found = check(late, WANTED)
    assert (found.reasons == ()) is valid
    assert valid or "the client sent up to 11 ms late (P99; limit 10 ms)" in found.reasons


def test_the_limit_of_slow_classes_is_50_ms():
    slow = [replace(t, tbt_ns=1000 * MS, sent_ns=t.arrival_ns + 49 * MS) for t in GOOD]
    assert check(slow, WANTED).reasons == ()
    assert check([replace(t, sent_ns=t.arrival_ns + 51 * MS) for t in slow], WANTED).reasons


def test_one_late_request_in_a_thousand_is_no_lag():
    many = [timeline(f"m{i}", i, [300, 40, 40]) for i in range(1000)]
    many[0] = replace(many[0], sent_ns=many[0].arrival_ns + 200 * MS)
    assert check(many, {t.request_id: (100, 3) for t in many}).reasons == ()


BAD = {
    "busy client": ({}, 0.86, "the client used 86% of a core (limit 85%)"),
    "refused request": (
        {"status": "error", "error": "http 500: no"}, 0.1, "1 of 100 requests failed (http 500)"
    ),
    "aborted request": ({"status": "aborted"}, 0.1, "1 of 100 requests failed (aborted)"),
    "other prompt": ({"prompt_tokens": 99}, 0.1, "1 prompts had another length than asked"),
    "short answer": ({"token_ns": (1, 2)}, 0.1, "1 answers had another length than asked"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "cpu", "reason"), BAD.values(), ids=BAD.keys())
def test_what_makes_a_run_invalid(change: dict[str, object], cpu: float, reason: str):
    assert check([*GOOD[:-1], replace(GOOD[-1], **change)], WANTED, client_cpu=cpu).reasons == (reason,)


def test_a_request_that_left_no_trace():
    assert check(GOOD[1:], WANTED).reasons == ("1 requests left no trace",)


def test_a_request_that_timed_out_is_the_arms_doing():
    assert check([*GOOD[:-1], replace(GOOD[-1], status="timeout", token_ns=())], WANTED).reasons == ()
