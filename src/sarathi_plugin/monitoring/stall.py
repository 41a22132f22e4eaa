"""A recorded stall as Prometheus would have scraped it, and the test of the open-stall alert that it makes.

The gauges of overdue requests are a function of arrivals, token times and deadlines, and a recording has all three:
what they read at every scrape of that run is computed from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.deadlines import DeadlineState
from sarathi_plugin.monitoring.alerts import ALERTS
from sarathi_plugin.monitoring.objective import OPEN_STALL_S
from sarathi_plugin.monitoring.rulefiles import dump
from sarathi_plugin.telemetry.recording import read_recording

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sarathi_plugin.records import RequestTimeline

SCRAPE_S = 5
KEPT = 60 // SCRAPE_S
"""Evaluations for which the alert stays on after its cause is gone."""

ALERT = next(alert for alert in ALERTS if alert.name == "SarathiOpenStall")


class Overdue(NamedTuple):
    """One reading of both gauges."""

    requests: int
    oldest_s: float


def overdue_at(timelines: Sequence[RequestTimeline], now_ns: int) -> Overdue:
    """What the gauges of these requests read at a moment of their run."""
    ages = []
    for timeline in timelines:
        if not timeline.arrival_ns <= now_ns < timeline.end_ns:
            continue
        first_ns = timeline.prefill_ns + timeline.ttft_slack_ns
        state = DeadlineState.from_arrival(timeline.arrival_ns, first_ns, timeline.tbt_ns)
        for token_ns in timeline.token_ns:
            if token_ns > now_ns:
                break
            state.emit(token_ns)
        if state.next_deadline_ns < now_ns:
            ages.append(now_ns - state.next_deadline_ns)
    return Overdue(len(ages), max(ages, default=0) / NS_PER_S)


def scraped(timelines: Sequence[RequestTimeline], every_s: float = SCRAPE_S) -> dict[str, list[Overdue]]:
    """Readings per SLO class, from the first arrival until one after the last end."""
    by_class: dict[str, list[RequestTimeline]] = {}
    for timeline in timelines:
        by_class.setdefault(timeline.slo_class, []).append(timeline)
    start = min((timeline.arrival_ns for timeline in timelines), default=0)
    end = max((timeline.end_ns for timeline in timelines), default=0)
    step = round(every_s * NS_PER_S)
    moments = range(start, end + 2 * step, step)
    return {name: [overdue_at(own, now) for now in moments] for name, own in sorted(by_class.items())}


def rule_test(path: Path) -> str:
    """A test for ``promtool test rules``: quiet before the stall, firing in it and a minute longer, then quiet.

    Raises ConfigError for a recording that cannot be read, or in which nothing stalls for long enough.
    """
    recording = read_recording(path)
    by_class = scraped(recording.timelines)
    late = {
        name: [index for index, reading in enumerate(found) if reading.oldest_s > OPEN_STALL_S]
        for name, found in by_class.items()
    }
    if not any(late.values()):
        raise ConfigError(f"In {path} no request is overdue for more than {OPEN_STALL_S} s at any scrape.")
    labels = f'model_name="{recording.head["model_name"]}", engine="0", instance="localhost:8000", job="vllm"'
    inputs = [
        {"series": f'{name}{{{labels}, slo_class="{slo}"}}', "values": " ".join(values)}
        for slo, found in by_class.items()
        for name, values in (
            ("sarathi_oldest_overdue_seconds", [f"{reading.oldest_s:.3f}" for reading in found] + ["0x40"]),
            ("sarathi_requests_overdue", [str(reading.requests) for reading in found] + ["0x40"]),
        )
    ]
    cases = [
        case for name, found in late.items() for case in _cases(recording.head["model_name"], name, found)
    ]
    oldest = max(reading.oldest_s for found in by_class.values() for reading in found)
    test = {
        "name": f"a recorded stall: the oldest request was overdue for {oldest:.1f} s at a scrape",
        "interval": f"{SCRAPE_S}s",
        "input_series": inputs,
        "promql_expr_test": cases,
    }
    rules = {"rule_files": ["../rules/alerts.yml"], "evaluation_interval": f"{SCRAPE_S}s"}
    return dump(rules | {"tests": [test]})


def _cases(model: str, slo: str, late: list[int]) -> list[dict[str, Any]]:
    """Moments at which one class has the alert or not. late: readings that are above its threshold."""
    labels = f'severity="{ALERT.severity}", model_name="{model}", slo_class="{slo}"'
    firing = [{"labels": f"{{{labels}}}", "value": 1}]
    moments: list[tuple[int, list[dict[str, Any]]]] = [(0, [])]
    if late:
        moments = [
            (late[0] - 1, []),
            (late[0], firing),
            (late[-1], firing),
            (late[-1] + KEPT // 2, firing),
            (late[-1] + KEPT + 2, []),
        ]
    which = f'alertname="{ALERT.name}", alertstate="firing", slo_class="{slo}"'
    expr = f"count by (severity, model_name, slo_class) (ALERTS{{{which}}})"
    return [
        {"expr": expr, "eval_time": f"{index * SCRAPE_S}s", "exp_samples": samples}
        for index, samples in moments
    ]
