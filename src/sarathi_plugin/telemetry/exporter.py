"""Engine messages into Prometheus series, in the API server's process, on vLLM's own ``/metrics``."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from sarathi_plugin.telemetry.catalogue import CATALOGUE, KNOWN_VALUES, PREFIX, Metric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sarathi_plugin.telemetry.buffer import Message

BASE_LABELS = ("model_name", "engine")
Family = Counter | Gauge | Histogram


def make_family(metric: Metric, registry: CollectorRegistry) -> Family:
    """The Prometheus family of one catalogue row."""
    labels = (*BASE_LABELS, *metric.labels)
    name = PREFIX + metric.name
    if metric.kind == "counter":
        return Counter(name, metric.help, labels, registry=registry)
    if metric.kind == "histogram":
        return Histogram(name, metric.help, labels, buckets=metric.buckets, registry=registry)
    # Several API servers write the same gauges from the same shared state: the latest is right.
    return Gauge(name, metric.help, labels, registry=registry, multiprocess_mode="mostrecent")


def observe_buckets(histogram: Histogram, counts: Sequence[int], total: float) -> None:
    """Add many observations at once.

    prometheus-client has no public call for it, and one call per token would cost milliseconds per step; a test holds
    this against ``Histogram.observe``.
    """
    for bucket, count in zip(histogram._buckets, counts, strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(total)


class Exporter:
    """All families of the catalogue for one model; one per process and registry.

    Children are looked up once and kept: a series exists from its first sample.
    """

    def __init__(
        self,
        model_name: str,
        registry: CollectorRegistry = REGISTRY,
        families: Mapping[str, Family] | None = None,
    ) -> None:
        self._model = model_name
        self._families = families or {metric.name: make_family(metric, registry) for metric in CATALOGUE}
        self._children: dict[tuple[str, int, tuple[str, ...]], Any] = {}

    def for_model(self, model_name: str) -> Exporter:
        """The same families for another model served by this process."""
        return Exporter(model_name, families=self._families)

    def child(self, name: str, engine: int, labels: Sequence[str]) -> Any:
        """The series of one family with these label values."""
        key = (name, engine, tuple(labels))
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = self._families[name].labels(self._model, str(engine), *labels)
        return found

    def apply(self, message: Message, engine: int) -> None:
        """Take one engine message."""
        for name, labels, value in message["c"]:
            self.child(name, engine, labels).inc(value)
        for name, labels, total, counts in message["h"]:
            observe_buckets(self.child(name, engine, labels), counts, total)
        for name, labels, value in message["g"]:
            self.child(name, engine, labels).set(value)

    def set(self, name: str, engine: int, value: float, labels: Sequence[str] = ()) -> None:
        """Set one gauge."""
        self.child(name, engine, labels).set(value)

    def start(self, engine: int, known: Mapping[str, Sequence[str]], build: Mapping[str, str]) -> None:
        """Create the series that must read 0 before anything happened (a rate needs a start), and build info.

        known: values of the labels that depend on the settings (``slo_class``, ``plugin``, ``tbt_ms``); series with
        other labels that are not known beforehand appear with their first sample.
        """
        values = {**KNOWN_VALUES, **known}
        for metric in CATALOGUE:
            if all(label in values for label in metric.labels):
                for labels in itertools.product(*(values[label] for label in metric.labels)):
                    self.child(metric.name, engine, labels)
        for name in known.get("plugin", ()):
            self.set("plugin_enabled", engine, 1, (name,))
        info = [build[key] for key in ("version", "vllm_version", "policy", "slo", "curve")]
        self.set("build_info", engine, 1, info)
        self.set("policy_enabled", engine, 1)
