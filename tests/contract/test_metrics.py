"""Names, types and labels of the metrics are a promise: dashboards and alerts of others rest on them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from sarathi_plugin.telemetry.catalogue import CATALOGUE, PREFIX, Metric, markdown
from sarathi_plugin.telemetry.exporter import Exporter

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
GOLDEN = (HERE / "metric_names.txt").read_text(encoding="utf-8").splitlines()
BASE = {"model_name", "engine"}
each_metric = pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)


def line(name: str, kind: str, labels: str) -> str:
    """One line of metric_names.txt: name, type, labels by commas."""
    return f"{name} {kind} {labels}".rstrip()


def test_the_catalogue_holds_what_was_promised():
    """To change a name on purpose, change metric_names.txt too, and say so in the changelog."""
    assert [line(m.full_name, m.kind, ",".join(m.labels)) for m in CATALOGUE] == GOLDEN


def test_an_api_server_registers_what_was_promised():
    registry = CollectorRegistry()
    exporter = Exporter("model", registry)
    for metric in CATALOGUE:
        exporter.child(metric.name, 0, [f"any {label}" for label in metric.labels])
    found = []
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        own = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert own >= BASE
        found.append((name, family.type, own - BASE))
    wanted = [(m.full_name, m.kind, set(m.labels)) for m in CATALOGUE]
    assert found == wanted


def test_no_label_is_unbounded():
    assert {label for metric in CATALOGUE for label in metric.labels} == {
        "slo_class", "status", "tbt_ms", "kind", "limit", "plugin", "version", "vllm_version", "policy", "slo", "curve",
    }  # fmt: skip


def test_no_name_is_taken_twice():
    assert len({metric.full_name for metric in CATALOGUE}) == len(CATALOGUE)


@each_metric
def test_names_follow_the_rules_of_prometheus(metric: Metric):
    assert re.fullmatch(r"sarathi_[a-z][a-z_]*[a-z]", metric.full_name)
    assert metric.full_name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"_(ms|ns|milliseconds|percent)(_|$)", metric.full_name)  # base units only
    assert metric.full_name.startswith(PREFIX)
    assert "request_id" not in metric.labels
    assert not set(metric.labels) & BASE
    assert metric.help.endswith(".") or metric.help[-1].isalnum()


@each_metric
def test_histograms_and_only_they_have_rising_buckets(metric: Metric):
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))


def test_the_fluidity_index_has_an_edge_at_its_threshold():
    buckets = {metric.name: metric.buckets for metric in CATALOGUE}
    assert 0.9 in buckets["request_fluidity_index"]
    assert buckets["request_fluidity_index"][-1] == 1.0


def test_latency_buckets_hold_the_built_in_targets():
    for metric in CATALOGUE:
        if metric.name in ("tbt_seconds", "ttft_seconds"):
            assert {0.025, 0.05, 0.1, 0.3, 1.0} <= set(metric.buckets)


# -- docs/metrics.md ---------------------------------------------------------------------------------------------


def test_the_table_in_the_docs_is_up_to_date():
    """``make generate`` renews it."""
    assert markdown().strip() in (DOCS / "metrics.md").read_text(encoding="utf-8")


def test_the_table_in_the_docs_has_a_row_of_four_cells_for_every_metric():
    rows = [
        line
        for line in (DOCS / "metrics.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [len(row) for row in cells] == [4] * len(CATALOGUE)
    labels_of = [labels.replace(", ", ",").removeprefix("-") for _, _, labels, _ in cells]
    found = [line(name.strip("`"), kind, own) for (name, kind, *_), own in zip(cells, labels_of, strict=True)]
    assert found == GOLDEN
    assert all(meaning for *_, meaning in cells)


@pytest.mark.parametrize(
    "path", sorted([*DOCS.glob("*.md"), DOCS.parent / "README.md"]), ids=lambda path: path.name
)
def test_every_metric_the_docs_speak_of_exists(path: Path):
    known = {promised.split(" ")[0] for promised in GOLDEN}
    suffixes = ("_bucket", "_sum", "_count")
    for name in re.findall(r"\bsarathi_[a-z_]+[a-z]\b", path.read_text(encoding="utf-8")):
        if name.startswith(("sarathi_plugin", "sarathi_config")) and name not in known:
            continue  # the package, the file
        bare = name
        for suffix in suffixes:
            bare = bare.removesuffix(suffix)
        assert name in known or bare in known, name
