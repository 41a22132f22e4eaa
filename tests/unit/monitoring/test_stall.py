"""The recorded stall: what the gauges read, and the rule test that it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.deadlines import overdue_periods
from sarathi_plugin.monitoring import stall
from sarathi_plugin.telemetry.recording import read_recording
from tests.unit.telemetry.test_chrome_trace import make_timeline

STALL = Path(__file__).parents[2] / "data" / "stall.jsonl.gz"


@pytest.mark.parametrize(
    ("at_ms", "requests", "oldest_ms"),
    [(20, 0, 0), (25, 1, 5), (30, 0, 0), (130, 0, 0), (180, 1, 50), (200, 0, 0), (250, 0, 0)],
)
def test_readings_of_one_request(at_ms, requests, oldest_ms):
    """Due at 20 and comes at 30; due at 130 and comes at 200; ends at 250."""
    found = stall.overdue_at([make_timeline([30, 200, 250], 250)], at_ms * NS_PER_MS)
    assert found == (requests, pytest.approx(oldest_ms / 1000))


def test_it_is_a_stall_of_more_than_ten_seconds_of_streams_with_output_under_way():
    recording = read_recording(STALL)
    assert recording.head["policy"] == "prefill-first"
    longest = max(gap for timeline in recording.timelines for gap in timeline.gaps_ns)
    assert longest >= 10 * NS_PER_S
    assert max(timeline.prompt_tokens for timeline in recording.timelines) >= 12_000
    by_class = stall.scraped(recording.timelines)
    assert max(reading.oldest_s for reading in by_class["interactive"]) >= 10
    assert max(reading.requests for reading in by_class["interactive"]) == 6


def test_readings_agree_with_the_deadlines_that_were_missed():
    recording = read_recording(STALL)
    for timeline in recording.timelines:
        for token_ns in timeline.token_ns:
            before = stall.overdue_at([timeline], token_ns - 1)
            assert bool(before.requests) == (overdue_periods(round(before.oldest_s * NS_PER_S), 0, 1) > 0)
    total = sum(timeline.missed for timeline in recording.timelines)
    assert total > 0


def test_the_rule_test_holds_the_series_of_the_recording():
    (test,) = yaml.safe_load(stall.rule_test(STALL))["tests"]
    series = {entry["series"]: entry["values"] for entry in test["input_series"]}
    (values,) = [v for name, v in series.items() if "oldest" in name and "interactive" in name]
    assert max(float(value) for value in values.split()[:-1]) >= 10
    assert any(case["exp_samples"] for case in test["promql_expr_test"])
    assert any(not case["exp_samples"] for case in test["promql_expr_test"])


def test_without_a_stall_there_is_nothing_to_test(monkeypatch):
    monkeypatch.setattr(stall, "OPEN_STALL_S", 1000)
    with pytest.raises(ConfigError, match="more than 1000 s"):
        stall.rule_test(STALL)
