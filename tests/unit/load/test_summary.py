from dataclasses import replace

import pytest

from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.load.summary import (
    first_waits_ns,
    fluid_shares,
    gaps_ns,
    is_fluid,
    percentile_ns,
    summarise,
)
from sarathi_plugin.records import RequestTimeline

MS = NS_PER_MS
GOOD = RequestTimeline(
    request_id="a",
    source="client",
    slo_class="standard",
    arrival_ns=0,
    sent_ns=0,
    scheduled_ns=None,
    token_ns=(100 * MS, 200 * MS, 200 * MS, 300 * MS),
    end_ns=400 * MS,
    status="finished",
    prompt_tokens=96,
    tbt_ns=100 * MS,
    ttft_slack_ns=0,
    prefill_ns=100 * MS,
    curve="c",
    met=4,
    missed=0,
)
LATE = replace(GOOD, request_id="b", token_ns=(200 * MS, 900 * MS), end_ns=1000 * MS, met=1, missed=7)
FAILED = replace(GOOD, request_id="c", token_ns=(), status="error", end_ns=500 * MS, met=0, missed=0)


def test_figures():
    summary = summarise([GOOD, LATE, FAILED])
    assert (summary.requests, summary.errors) == (3, 1)
    assert summary.longest_freeze_ns == 700 * MS
    # gaps per token: 100, 0, 100 and 700 ms
    assert summary.tbt_p50_ns == 100 * MS
    assert summary.ttft_p50_ns == 150 * MS
    assert summary.fluidity_index == 5 / 12
    assert summary.fluid_share == 1 / 3
    assert summary.makespan_ns == NS_PER_S
    assert summary.tokens_per_s == 96 + 4 + 96 + 2


def test_a_failed_request_is_never_fluid():
    assert is_fluid(GOOD)
    assert not is_fluid(replace(GOOD, status="aborted"))
    assert not is_fluid(replace(GOOD, met=89, missed=11))
    assert is_fluid(replace(GOOD, met=9, missed=1))


def test_who_timed_out_is_in_latencies_with_what_it_had_waited():
    late = {"status": "timeout", "end_ns": 600 * NS_PER_S}
    unanswered, frozen = replace(GOOD, token_ns=(), **late), replace(GOOD, **late)
    assert first_waits_ns([GOOD, unanswered, frozen, FAILED]) == [100 * MS, 600 * NS_PER_S, 100 * MS]
    assert gaps_ns(unanswered) == []
    assert gaps_ns(frozen) == [*GOOD.gaps_ns, 600 * NS_PER_S - 300 * MS]
    summary = summarise([GOOD, unanswered, frozen])
    assert summary.longest_freeze_ns == 600 * NS_PER_S - 300 * MS
    assert summary.ttft_p99_ns > 500 * NS_PER_S


def test_shares_by_class():
    batch = replace(LATE, slo_class="batch")
    assert fluid_shares([GOOD, batch, FAILED, GOOD]) == {"standard": 2 / 3, "batch": 0.0}
    assert fluid_shares([]) == {}


def test_nothing_is_no_error():
    summary = summarise([])
    assert (summary.requests, summary.longest_freeze_ns, summary.tbt_p99_ns, summary.tokens_per_s) == (
        0,
        None,
        None,
        0,
    )


def test_other_curves_are_not_mixed():
    with pytest.raises(ValueError, match="different prefill curves"):
        summarise([GOOD, replace(LATE, curve="d")])


def test_percentile():
    assert percentile_ns([], 50) is None
    assert percentile_ns([1, 2, 3, 4], 50) == 2
    assert percentile_ns(range(101), 99) == 99
