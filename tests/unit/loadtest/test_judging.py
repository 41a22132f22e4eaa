import dataclasses
import math

import numpy as np
import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.loadtest.faults import KINDS, count_faults, fault_kind
from sarathi_plugin.loadtest.figures import FIGURES, by_class, figures, meets_slo, stalls
from sarathi_plugin.loadtest.live import Live, LogHistogram
from sarathi_plugin.loadtest.metrics import registry
from sarathi_plugin.loadtest.plan import duration_s
from sarathi_plugin.loadtest.thresholds import parse_threshold
from sarathi_plugin.loadtest.validity import Asked, ClientState, invalid_reasons
from sarathi_plugin.loadtest.watch import ClientWatch
from sarathi_plugin.records import RequestTimeline

MS = NS_PER_MS


def timeline(token_ms=(100, 150, 200), *, sent_ms=0, end_ms=None, status="finished", error="", **fields):
    """D_p 300 ms, D_d 100 ms, intended at 0."""
    tokens = tuple(ms * MS for ms in token_ms)
    known = {
        "request_id": "r",
        "source": "client",
        "slo_class": "standard",
        "arrival_ns": 0,
        "sent_ns": sent_ms * MS,
        "scheduled_ns": None,
        "token_ns": tokens,
        "end_ns": end_ms * MS if end_ms is not None else tokens[-1],
        "status": status,
        "prompt_tokens": 10,
        "tbt_ns": 100 * MS,
        "ttft_slack_ns": 200 * MS,
        "prefill_ns": 100 * MS,
        "curve": "c",
        "met": len(tokens),
        "missed": 0,
        "error": error,
    }
    return RequestTimeline(**(known | fields))


LOST = timeline((), end_ms=900, status="error", error="reset: broke", met=0, missed=7)


def test_both_kinds_of_ttft_and_failures_in_every_share():
    found = figures([timeline(sent_ms=40), LOST])
    assert found["ttft_p50_s"] == pytest.approx(0.1)
    assert found["ttft_sent_p50_s"] == pytest.approx(0.06)
    assert found["e2e_p50_s"] == pytest.approx(0.2)
    assert (found["requests"], found["errors"], found["error_share"]) == (2, 1, 0.5)
    assert (found["fluidity_share"], found["slo_share"]) == (0.5, 0.5)
    assert found["fluidity_index"] == pytest.approx(3 / 10)
    assert found["dispatch_lag_p99_s"] == pytest.approx(0.04, rel=0.02)
    assert set(figures([])) == set(FIGURES)


def test_who_timed_out_is_in_every_latency_with_what_it_had_waited():
    unanswered = timeline((), sent_ms=40, end_ms=9000, status="timeout", error="timeout: not done in 9 s")
    frozen = timeline((100, 150), sent_ms=10, end_ms=9000, status="timeout", error="timeout: not done in 9 s")
    found = figures([timeline(), unanswered, frozen, LOST])
    assert found["ttft_p50_s"] == pytest.approx(0.1)
    assert found["ttft_p99_s"] == pytest.approx(8.822)  # 0.1, 0.1 and 9 s
    assert found["ttft_sent_p99_s"] == pytest.approx(8.7828)  # 0.1, 0.09 and 8.96 s
    assert found["longest_freeze_s"] == pytest.approx(8.85)
    assert found["e2e_p50_s"] == pytest.approx(9)  # 0.2, 9 and 9 s
    assert found["fluid_tokens_per_s"] == pytest.approx(2 / 8.9, rel=0.01)  # the gap before banks slack
    live = Live()
    for one in (timeline(), unanswered, frozen, LOST):
        live.add(one)
    assert live.classes["standard"].ttft.total == 3
    assert live.classes["standard"].ttft.percentile_s(99) == pytest.approx(9, rel=0.05)
    assert live.classes["standard"].tbt.percentile_s(99) == pytest.approx(8.85, rel=0.05)
    assert live.classes["standard"].e2e.total == 3


def test_figures_by_class():
    assert list(by_class([timeline(), timeline(slo_class="batch")])) == ["batch", "standard"]


def test_a_stall_is_time_past_the_deadline_of_a_stream_under_way():
    # due at 300, 400, 500: the third came at 750
    assert [s.length_ns // MS for s in stalls(timeline((100, 400, 750)))] == [250]
    assert stalls(timeline((350,))) == []
    assert [s.length_ns // MS for s in stalls(timeline((100,), end_ms=900, status="error"))] == [500]
    assert stalls(LOST) == []


def test_the_slo_holds_only_with_the_first_token_in_time():
    late = timeline((320, *range(330, 530, 10)), met=20, missed=1)
    assert late.fluidity_index > 0.9
    assert not meets_slo(late)
    assert meets_slo(timeline())


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        ("finished", "", ""),
        ("error", "http 429: slow down", "http 429"),
        ("error", "http 503: {}", "http 503"),
        ("timeout", "read-timeout: no bytes for 1 s", "read-timeout"),
        ("aborted", "the server aborted the request", "aborted"),
        ("aborted", "stopped: the run was stopped", "stopped"),
        ("error", "who knows", "other"),
        *(("error", f"{kind}: x", kind) for kind in KINDS),
    ],
)
def test_every_failure_has_a_kind(status, error, kind):
    assert fault_kind(timeline(status=status, error=error)) == kind


def test_faults_are_counted():
    assert count_faults([LOST, timeline(), LOST, timeline(status="error", error="server: x")]) == {
        "reset": 2,
        "server": 1,
    }


@pytest.mark.parametrize(
    ("text", "value", "fails"),
    [
        ("fluidity_share<0.99", 0.98, True),
        ("fluidity_share<0.99", 0.99, False),
        (" ttft_p99_s >= 2 ", 2.0, True),
        ("errors>0", 0, False),
        ("errors <= 1e0", 1, True),
        ("tbt_p99_s>1", None, True),
    ],
)
def test_thresholds(text, value, fails):
    threshold = parse_threshold(text, FIGURES)
    assert threshold.fails({threshold.name: value}) is fails


@pytest.mark.parametrize(
    "text", ["", "errors", "errors=1", "nonsense<1", "errors<x", "errors<1.2.3", "errors<1 or"]
)
def test_bad_thresholds(text):
    with pytest.raises(ConfigError, match=r"--fail-if"):
        parse_threshold(text, FIGURES)


GOOD = ClientState(0.5)
ASKED = {"r": Asked(10, 3)}


@pytest.mark.parametrize(
    ("timelines", "clients", "words"),
    [
        ([timeline(sent_ms=21)], [GOOD], "sent late: 21.0 ms at P99, more than 20 ms"),
        ([timeline(sent_ms=51, tbt_ns=1000 * MS)], [GOOD], "51.0 ms at P99, more than 50 ms"),
        ([timeline()], [GOOD, ClientState(0.9)], "Worker 1 used 90%"),
        ([timeline()], [ClientState(0.1, clock_step_ns=-60 * MS)], "jumped by -60 ms"),
        ([timeline()], [ClientState(0.1, clock_error_ns=70 * MS)], "its clock is known within 70 ms"),
        ([timeline(prompt_tokens=11)], [GOOD], "1 of 1 prompts"),
        ([timeline((100, 150))], [GOOD], "1 of 1 answers"),
    ],
)
def test_reasons_to_refuse_a_run(timelines, clients, words):
    reasons = invalid_reasons(timelines, clients, ASKED)
    assert len(reasons) == 1
    assert words in reasons[0]


def test_a_valid_run():
    unasked = dataclasses.replace(timeline((100,)), request_id="other")
    short = timeline((100,), end_ms=100, status="error", error="truncated: x")
    assert invalid_reasons([timeline(sent_ms=20), unasked, short, LOST], [GOOD], ASKED) == []


def test_the_busiest_seconds_count():
    now, used = [0], [0]
    watch = ClientWatch(clock=lambda: now[0], wall=lambda: now[0] + 5, cpu=lambda: used[0])
    for busy in [0.1] * 10 + [1.0] * 5 + [0.2] * 10:
        now[0] += NS_PER_S
        used[0] += round(busy * NS_PER_S)
        watch.sample()
    assert watch.cpu == pytest.approx(1.0)
    assert watch.clock_step_ns == 0


def test_a_short_run_is_one_window():
    now, used = [0], [0]
    watch = ClientWatch(clock=lambda: now[0], wall=lambda: now[0] * 2, cpu=lambda: used[0])
    now[0], used[0] = 2 * NS_PER_S, NS_PER_S
    watch.sample()
    assert watch.cpu == pytest.approx(0.5)
    assert watch.clock_step_ns == 2 * NS_PER_S


def test_histogram_percentiles_are_within_five_percent():
    values = np.random.default_rng(0).lognormal(math.log(50 * MS), 1, 5000).astype(int)
    histogram = LogHistogram()
    for part in np.split(values, 10):
        histogram.add(part.tolist())
    for percentile in (1, 50, 90, 99):
        exact = np.percentile(values, percentile) / NS_PER_S
        assert exact * 0.99 <= histogram.percentile_s(percentile) <= exact * 1.06
    assert histogram.total == 5000
    assert histogram.sum_ns == values.sum()
    assert histogram.below(1e9) == 5000
    assert LogHistogram().percentile_s(50) is None


def test_live_figures_and_the_series_made_of_them():
    live = Live()
    live.add(timeline(sent_ms=1))
    live.tick(1.0)
    live.add(LOST)
    live.tick(2.0)
    assert [(p.at_s, p.ended, p.failed, p.fluidity_index) for p in live.course] == [
        (1.0, 1, 0, 1.0),
        (2.0, 1, 1, 0.0),
    ]
    (row,) = live.rows()
    assert (row["ended"], row["failed"], row["fluid"], row["fluidity"]) == ("2", "1", "50.0%", "30.0%")
    series = registry(live)
    label = {"slo_class": "standard"}
    assert series.get_sample_value("sarathi_client_requests_total", label) == 2
    assert series.get_sample_value("sarathi_client_deadlines_missed_total", label) == 7
    assert series.get_sample_value("sarathi_client_faults_total", label | {"kind": "reset"}) == 1
    assert series.get_sample_value("sarathi_client_tbt_seconds_bucket", label | {"le": "0.025"}) == 0
    assert series.get_sample_value("sarathi_client_tbt_seconds_bucket", label | {"le": "0.075"}) == 2
    assert series.get_sample_value("sarathi_client_ttft_seconds_count", label) == 1
    live.reset()
    assert live.rows() == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("720h", 2_592_000), (None, None)],
)
def test_durations(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1s", "5 minutes", "nan", "99999999999h", "721h"])
def test_bad_durations(text):
    with pytest.raises(ConfigError, match="--duration"):
        duration_s(text)
