"""What the engine gathers, and what the exporter makes of it, against prometheus-client's own way."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import Gauge

from sarathi_plugin.telemetry.buffer import MetricBuffer
from sarathi_plugin.telemetry.catalogue import BY_NAME, CATALOGUE, PREFIX
from sarathi_plugin.telemetry.exporter import Exporter, make_family

BUILD = {"version": "1", "vllm_version": "2", "policy": "sarathi", "slo": "deadline", "curve": "c"}


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All series; a family's creation time apart."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def make_exporter() -> tuple[Exporter, CollectorRegistry]:
    registry = CollectorRegistry()
    return Exporter("model", registry), registry


def random_values(rng: random.Random, name: str, count: int) -> list[float]:
    """Values round the edges, on them, below the first and beyond the last."""
    edges = BY_NAME[name].buckets
    return [
        rng.choice(
            [rng.choice(edges), rng.uniform(0, edges[-1]), 0.0, edges[-1] * 3, rng.choice(edges) + 1e-9]
        )
        for _ in range(count)
    ]


HISTOGRAMS = [metric.name for metric in CATALOGUE if metric.kind == "histogram"]


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_histograms_are_those_of_prometheus_client(name: str):
    rng = random.Random(name)
    exporter, registry = make_exporter()
    theirs = CollectorRegistry()
    family = make_family(BY_NAME[name], theirs)
    labels = tuple(f"value of {label}" for label in BY_NAME[name].labels)
    buffer = MetricBuffer()
    for _ in range(5):  # several messages add up
        for value in random_values(rng, name, 40):
            times = rng.choice([1, 1, 3])
            buffer.observe(name, value, labels, times)
            for _ in range(times):
                family.labels("model", "0", *labels).observe(value)
        values = np.array(random_values(rng, name, 100))
        buckets = np.bincount(
            np.searchsorted(BY_NAME[name].buckets, values), minlength=len(BY_NAME[name].buckets) + 1
        )
        buffer.observe_counts(name, buckets, float(values.sum()), labels)
        for value in values.tolist():
            family.labels("model", "0", *labels).observe(value)
        exporter.apply(buffer.drain(), 0)
    found, wanted = samples(registry), samples(theirs)
    ours = {key: value for key, value in found.items() if key in wanted}
    assert ours == pytest.approx(wanted, rel=1e-9)
    assert any(value for key, value in wanted.items() if key[0].endswith("_count"))


def test_counters_add_up_and_gauges_keep_the_last():
    exporter, registry = make_exporter()
    buffer = MetricBuffer()
    buffer.add("deadlines_met", 2, ("a",))
    buffer.add("deadlines_met", 3, ("a",))
    buffer.add("deadlines_met", 1, ("b",))
    buffer.set("fluid_token_rate", 9)
    buffer.set("fluid_token_rate", 7)
    exporter.apply(buffer.drain(), 0)
    buffer.add("deadlines_met", 10, ("a",))
    exporter.apply(buffer.drain(), 0)
    exporter.apply({"c": [["deadlines_met", ["a"], 1]], "h": [], "g": []}, 1)
    get = registry.get_sample_value
    base = {"model_name": "model", "engine": "0"}
    assert get("sarathi_deadlines_met_total", base | {"slo_class": "a"}) == 15
    assert get("sarathi_deadlines_met_total", base | {"slo_class": "b"}) == 1
    assert get("sarathi_deadlines_met_total", base | {"engine": "1", "slo_class": "a"}) == 1
    assert get("sarathi_fluid_token_rate", base) == 7


def test_nothing_is_nothing():
    buffer = MetricBuffer()
    assert buffer.drain() is None
    buffer.add("deadlines_met", 0, ("a",))
    assert buffer.drain() is None
    buffer.set("fluid_token_rate", 0)
    assert buffer.drain() is not None
    assert buffer.drain() is None


def test_a_message_is_plain_data_that_any_encoder_takes():
    buffer = MetricBuffer()
    buffer.add("fluid_requests", True, ("a",))
    buffer.observe("tbt_seconds", 0.1, ("a",), 3)
    buffer.observe_counts("tbt_seconds", np.bincount([1, 1, 30], minlength=31), 0.5, ("a",))
    buffer.set("policy_enabled", 0)
    message = buffer.drain()
    assert json.loads(json.dumps(message)) == message


class Word(StrEnum):
    SLACK = "slack"


def test_numbers_of_numpy_and_enumerated_labels_leave_as_plain_ones():
    """vLLM's encoder refuses them in the thread that sends the engine's answers."""
    buffer = MetricBuffer()
    buffer.add("relegations", np.int64(3))
    buffer.add("policy_fallbacks", np.bool_(True))
    buffer.add("step_budget_limit", 1, (Word.SLACK,))
    buffer.add("step_budget_limit", 1, (np.str_("memory"),))
    buffer.observe("step_budget_tokens", np.int64(512))
    buffer.set("fluid_token_rate", np.float64(20))
    message = buffer.drain()
    assert message is not None
    assert [row[2] for row in message["c"]] == [3, 1, 1, 1]
    assert {type(row[2]) for rows in message.values() for row in rows} == {int, float}
    assert [row[1] for row in message["c"]] == [[], [], ["slack"], ["memory"]]
    assert {type(label) for rows in message.values() for row in rows for label in row[1]} == {str}


def test_a_drained_message_does_not_change_any_more():
    buffer = MetricBuffer()
    buffer.observe("tbt_seconds", 0.1, ("a",))
    message = buffer.drain()
    before = json.dumps(message)
    buffer.observe("tbt_seconds", 0.1, ("a",))
    assert json.dumps(message) == before


def test_series_exist_before_anything_happened():
    exporter, registry = make_exporter()
    exporter.start(3, {"slo_class": ["a", "b"], "plugin": ["mine"], "tbt_ms": ["25"]}, BUILD)
    found = samples(registry)
    base = (("engine", "3"), ("model_name", "model"))
    for name in ("sarathi_deadlines_missed_total", "sarathi_tbt_seconds_count", "sarathi_requests_overdue"):
        for slo in "ab":
            assert found[name, (*base, ("slo_class", slo))] == 0
        for status in ("finished", "aborted", "error", "timeout"):
            assert (
                found["sarathi_requests_finished_total", (*base, ("slo_class", slo), ("status", status))] == 0
            )
    for kind in ("decode", "mixed", "prefill"):
        assert found["sarathi_step_duration_seconds_count", (*base[:1], ("kind", kind), *base[1:])] == 0
    assert found["sarathi_plugin_errors_total", (*base, ("plugin", "mine"))] == 0
    assert found["sarathi_plugin_enabled", (*base, ("plugin", "mine"))] == 1
    assert found["sarathi_target_requests_total", (*base, ("tbt_ms", "25"))] == 0
    assert found["sarathi_preemptions_total", base] == 0
    assert found["sarathi_policy_enabled", base] == 1
    info = {key: value for key, value in found.items() if key[0] == "sarathi_build_info"}
    assert list(info.values()) == [1]
    assert dict(next(iter(info))[1]) == {"engine": "3", "model_name": "model", **BUILD}


def test_two_models_share_the_families_of_a_process():
    exporter, registry = make_exporter()
    other = exporter.for_model("other")
    for one in (exporter, other):
        one.apply({"c": [["preemptions", [], 1]], "h": [], "g": []}, 0)
    found = samples(registry)
    for model in ("model", "other"):
        assert found["sarathi_preemptions_total", (("engine", "0"), ("model_name", model))] == 1


def test_every_family_has_the_labels_and_buckets_of_the_catalogue():
    exporter, _ = make_exporter()
    for metric in CATALOGUE:
        family = exporter._families[metric.name]
        assert family._labelnames == ("model_name", "engine", *metric.labels)
        if metric.kind == "histogram":
            assert tuple(family._kwargs["buckets"]) == metric.buckets
        if isinstance(family, Gauge):
            assert family._multiprocess_mode == "mostrecent"


SERVE = """
import sys, time
from prometheus_client import CollectorRegistry
from sarathi_plugin.telemetry.buffer import MetricBuffer
from sarathi_plugin.telemetry.exporter import Exporter
exporter, buffer = Exporter("model", CollectorRegistry()), MetricBuffer()
exporter.start(0, {"slo_class": ["a"]}, dict.fromkeys(["version", "vllm_version", "policy", "slo", "curve"], "x"))
buffer.add("deadlines_met", 5, ("a",))
buffer.set("requests_overdue", float(sys.argv[1]), ("a",))
buffer.observe("tbt_seconds", 0.1, ("a",), 4)
exporter.apply(buffer.drain(), 0)
"""
COLLECT = """
import json
from prometheus_client import CollectorRegistry, multiprocess
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
found = {s.name + str(sorted(s.labels.items())): s.value for f in registry.collect() for s in f.samples}
print(json.dumps(found))
"""


def test_two_api_servers_add_their_counts_and_show_the_latest_gauge(tmp_path: Path):
    def run(code: str, *arguments: str) -> str:
        environment: dict[str, Any] = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    run(SERVE, "7")
    run(SERVE, "2")
    found = json.loads(run(COLLECT))
    base = [("engine", "0"), ("model_name", "model")]
    of_class = str([*base, ("slo_class", "a")])
    assert found[PREFIX + "deadlines_met_total" + of_class] == 10
    assert found[PREFIX + "requests_overdue" + of_class] == 2
    assert found[PREFIX + "tbt_seconds_count" + of_class] == 8
    assert found[PREFIX + "tbt_seconds_sum" + of_class] == pytest.approx(0.8)
    edge = str(sorted([*base, ("slo_class", "a"), ("le", "0.1")]))
    assert found[PREFIX + "tbt_seconds_bucket" + edge] == 8
