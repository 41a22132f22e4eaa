"""Criteria at their borders, and the sentences that refuse bad ones."""

from __future__ import annotations

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.records import RequestTimeline
from sarathi_plugin.search.criteria import (
    CRITERIA,
    Deadline,
    Fluid,
    Sarathi,
    TbtTtft,
    TtftTpot,
    make_criterion,
)

MS = NS_PER_MS


def timeline(gaps_ms: list[float], *, ttft_ms: float = 100, delay_ms: float = 10, **more) -> RequestTimeline:
    times = [round(ttft_ms * MS)]
    for gap in gaps_ms:
        times.append(times[-1] + round(gap * MS))
    fields = {
        "request_id": "r", "source": "simulator", "slo_class": "standard", "arrival_ns": 0, "sent_ns": 0,
        "scheduled_ns": round(delay_ms * MS), "token_ns": tuple(times), "end_ns": times[-1], "status": "finished",
        "prompt_tokens": 10, "tbt_ns": 50 * MS, "ttft_slack_ns": 0, "prefill_ns": 200 * MS, "curve": "c", "met": 10,
        "missed": 0,
    }  # fmt: skip
    return RequestTimeline(**(fields | more))


GOOD = timeline([40] * 99)


def test_p99_tbt_is_over_all_tokens_of_the_run():
    strict = Sarathi(tbt_s=0.1)
    one_bad = timeline([40] * 89 + [500] * 10)
    # 10 of 1089 gaps are late: under one in a hundred.
    assert strict.verdict(1.0, [GOOD] * 10 + [one_bad]).passed
    failed = strict.verdict(1.0, [GOOD] * 8 + [one_bad])
    assert not failed.passed
    assert failed.reason == "P99 TBT 0.5 s, more than 0.1 s"


@pytest.mark.parametrize(("delay_ms", "passed"), [(2000, True), (2001, False)])
def test_sarathi_also_limits_the_median_delay(delay_ms: float, passed: bool):
    run = [timeline([40], delay_ms=delay_ms)] * 2 + [timeline([40], delay_ms=9000), GOOD]
    verdict = Sarathi(tbt_s=0.1).verdict(1.0, run)
    assert verdict.passed is passed
    assert verdict.reason.startswith("" if passed else "P50 scheduling delay")


def test_a_client_that_cannot_see_the_delay_takes_what_the_first_token_was_late():
    unseen = {"source": "client", "scheduled_ns": None}
    assert Sarathi(tbt_s=0.1).verdict(1.0, [timeline([40], ttft_ms=2200, **unseen)]).passed
    verdict = Sarathi(tbt_s=0.1).verdict(1.0, [timeline([40], ttft_ms=2300, **unseen)])
    assert not verdict.passed
    assert verdict.median_delay_ns == 2100 * MS


def test_deadline_takes_the_p99_of_the_miss_rates():
    missed = {"met": 80, "missed": 20}
    assert Deadline().verdict(1.0, [GOOD] * 199 + [timeline([40], **missed)]).passed
    verdict = Deadline().verdict(1.0, [GOOD] * 50 + [timeline([40], **missed)])
    assert (verdict.passed, verdict.reason) == (True, "")  # P99 lies halfway between 0 and 0.2
    verdict = Deadline().verdict(1.0, [GOOD] * 40 + [timeline([40], **missed)])
    assert verdict.reason == "P99 miss rate 0.12, more than 0.1"


def test_etalons_constants_judge_ttft_at_p90_and_tpot_by_request():
    slow = timeline([20] * 10, ttft_ms=150)
    fast = timeline([20] * 10, ttft_ms=90)
    assert TbtTtft().verdict(1.0, [fast] * 19 + [slow]).passed
    assert TbtTtft().verdict(1.0, [fast] * 5 + [slow]).reason == "P90 TTFT 0.12 s, more than 0.1 s"
    stalls = timeline([20] * 98 + [5000] * 2)
    assert (
        TtftTpot().verdict(1.0, [fast] * 9 + [stalls]).passed
    )  # one in ten stalls for seconds: TPOT does not see it
    assert not TbtTtft().verdict(1.0, [fast] * 9 + [stalls]).passed
    assert (
        TtftTpot().verdict(1.0, [timeline([120] * 9, ttft_ms=90)]).reason
        == "P90 TPOT 0.12 s, more than 0.1 s"
    )


@pytest.mark.parametrize(
    "criterion", [Fluid(), Deadline(), Sarathi(tbt_s=9), TbtTtft(ttft_s=9), TtftTpot(ttft_s=9)]
)
@pytest.mark.parametrize("status", ["error", "timeout", "aborted"])
def test_a_request_that_failed_counts_against_every_criterion(criterion, status: str):
    failed = timeline([20], status=status)
    fast = timeline([20] * 10)
    assert criterion.verdict(1.0, [fast] * 20).passed
    assert not criterion.verdict(1.0, [fast] * 2 + [failed] * 18).passed


@pytest.mark.parametrize(("failed", "passed"), [(1, True), (2, False), (40, False)])
def test_no_more_requests_may_fail_than_a_percentile_of_tokens_leaves_out(failed: int, passed: bool):
    # A server at its limit refuses at once: no gap is late, and the median delay is that of the others.
    refused = timeline(
        [], status="error", token_ns=(), scheduled_ns=None, source="client", error="http 503: busy"
    )
    run = [GOOD] * (100 - failed) + [refused] * failed
    verdict = Sarathi(tbt_s=0.1).verdict(1.0, run)
    assert verdict.passed is passed
    assert verdict.reason == ("" if passed else "P99 TBT: too many requests failed")


def test_a_request_that_was_scheduled_and_failed_counts_as_never_scheduled():
    run = [GOOD] * 2 + [timeline([40], status="timeout")] * 3
    verdict = Sarathi(tbt_s=0.1, tbt_percentile=10).verdict(1.0, run)
    assert verdict.reason == "P50 scheduling delay: too many requests failed"


def test_criteria_are_made_by_name():
    assert make_criterion("fluid") == Fluid()
    assert make_criterion("sarathi", ["tbt_s=0.1", "delay_s=3"]) == Sarathi(tbt_s=0.1, delay_s=3)
    assert make_criterion("deadline", ["miss_rate=0.2"]) == Deadline(miss_rate=0.2)
    assert {make_criterion(name, ["tbt_s=1"] if name == "sarathi" else []).name for name in CRITERIA} == set(
        CRITERIA
    )


BAD = [
    ("smooth", [], "No criterion 'smooth': use one of fluid, sarathi, deadline, tbt_ttft, ttft_tpot."),
    ("fluid", ["share"], "Write --limit KEY=NUMBER, not 'share'."),
    ("fluid", ["share=2"], "criterion fluid: fluid.share: Input should be less than or equal to 1, got 2.0."),
    ("fluid", ["tbt_s=1"], "criterion fluid: fluid.tbt_s: this key is not known."),
    ("sarathi", [], "criterion sarathi: sarathi.tbt_s: this key is missing."),
    (
        "deadline",
        ["percentile=0"],
        "criterion deadline: deadline.percentile: Input should be greater than 0, got 0.0.",
    ),
]


@pytest.mark.parametrize(("name", "limits", "sentence"), BAD)
def test_bad_criteria_are_refused_in_one_sentence(name: str, limits: list[str], sentence: str):
    with pytest.raises(ConfigError) as caught:
        make_criterion(name, limits)
    assert str(caught.value) == sentence


def test_the_reason_tells_first_tokens_from_later_ones():
    late_first = timeline([40] * 9, ttft_ms=1000, met=9, missed=17)
    late_later = timeline([40] * 5 + [900], met=6, missed=14)
    broken = {"status": "error", "met": 0, "missed": 3}
    for bad, part in ((late_first, "first tokens late"), (late_later, "later tokens late")):
        assert Fluid().verdict(1.0, [GOOD] * 9 + [bad]).reason == f"standard: 90.0% fluid, {part}"
    failed = Fluid().verdict(1.0, [GOOD] * 9 + [timeline([40], **broken)])
    assert failed.reason == "standard: 90.0% fluid, requests failed"
    slow = [timeline([40], delay_ms=2500)] * 3
    assert Fluid().verdict(1.0, slow).reason == f"median delay {2500 * MS / NS_PER_S} s"
