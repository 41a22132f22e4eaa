"""Names of metrics are a promise: dashboards and alerts of others query them. A change here must be deliberate."""

from pathlib import Path

from prometheus_client import CollectorRegistry

from sarathi_plugin.telemetry.catalogue import CATALOGUE, PREFIX
from sarathi_plugin.telemetry.exporter import Exporter

GOLDEN = Path(__file__).with_name("metric_names.txt")


def test_the_catalogue_is_the_golden_list():
    assert [
        f"{m.full_name} {m.kind} {','.join(m.labels)}".rstrip() for m in CATALOGUE
    ] == GOLDEN.read_text().splitlines()


def test_the_exporter_registers_just_these():
    registry = CollectorRegistry()
    Exporter("m", registry)
    registered = {(family.name, family.type) for family in registry.collect()}
    assert registered == {(PREFIX + m.name, m.kind) for m in CATALOGUE}


def test_no_name_can_be_removed_by_vllm():
    """vLLM unregisters every collector of its own prefix when it starts its own logger."""
    assert all(m.full_name.startswith("sarathi_") for m in CATALOGUE)


def test_no_label_is_unbounded():
    assert {label for m in CATALOGUE for label in m.labels} == {
        "slo_class", "status", "tbt_ms", "kind", "limit", "plugin",
        "version", "vllm_version", "policy", "slo", "curve",
    }  # fmt: skip
