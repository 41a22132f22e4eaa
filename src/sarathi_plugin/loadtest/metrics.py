"""The client's own Prometheus series, made from the live figures when somebody asks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from sarathi_plugin.loadtest.live import ClassFigures, Live, LogHistogram

COUNTERS: dict[str, tuple[str, Callable[[ClassFigures], float]]] = {
    "sarathi_client_requests": ("Requests that ended.", lambda f: f.ended),
    "sarathi_client_fluid_requests": ("Requests with a fluidity-index of 0.9 or more.", lambda f: f.fluid),
    "sarathi_client_slo_requests": (
        "Fluid requests whose first token came in time, too.",
        lambda f: f.within_slo,
    ),
    "sarathi_client_deadlines_met": ("Token deadlines met.", lambda f: f.met),
    "sarathi_client_deadlines_missed": ("Token deadlines missed.", lambda f: f.missed),
    "sarathi_client_tokens": ("Output tokens received.", lambda f: f.tokens),
    "sarathi_client_stalls": ("Tokens that came past their deadline, after another one.", lambda f: f.stalls),
    "sarathi_client_stall_seconds": ("Time that streams stood still.", lambda f: f.stall_ns / NS_PER_S),
}
HISTOGRAMS: dict[str, tuple[str, Callable[[ClassFigures], LogHistogram]]] = {
    "sarathi_client_ttft_seconds": ("Intended start to first token.", lambda f: f.ttft),
    "sarathi_client_e2e_seconds": (
        "Intended start to end, of requests that finished or timed out.",
        lambda f: f.e2e,
    ),
    "sarathi_client_tbt_seconds": ("Time between tokens.", lambda f: f.tbt),
    "sarathi_client_dispatch_lag_seconds": ("Intended start to sending.", lambda f: f.lag),
}
BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300,
)  # fmt: skip


class ClientCollector(Collector):
    """Series of one run, by SLO class; the figures are right within the 5 % of their buckets."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def collect(self) -> Iterator[Metric]:
        """Every series as it stands."""
        classes = sorted(self._live.classes.items())
        for name, (text, value) in COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["slo_class"])
            for slo_class, figures in classes:
                counter.add_metric([slo_class], value(figures))
            yield counter
        faults = CounterMetricFamily(
            "sarathi_client_faults", "Failed requests by kind.", labels=["slo_class", "kind"]
        )
        for slo_class, figures in classes:
            for kind, count in sorted(figures.faults.items()):
                faults.add_metric([slo_class, kind], count)
        yield faults
        late = self._live.overdue
        yield GaugeMetricFamily(
            "sarathi_client_overdue_requests",
            "Requests whose next token is past its deadline now.",
            late.requests,
        )
        yield GaugeMetricFamily(
            "sarathi_client_worst_overdue_seconds",
            "How long the worst of them has waited.",
            late.worst_ns / NS_PER_S,
        )
        for name, (text, pick) in HISTOGRAMS.items():
            yield _histogram(name, text, [(slo_class, pick(figures)) for slo_class, figures in classes])


def _histogram(name: str, text: str, parts: list[tuple[str, LogHistogram]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=["slo_class"])
    for slo_class, histogram in parts:
        buckets = [(str(float(edge)), float(histogram.below(edge))) for edge in BUCKETS_S]
        family.add_metric(
            [slo_class], [*buckets, ("+Inf", float(histogram.total))], histogram.sum_ns / NS_PER_S
        )
    return family


def registry(live: Live) -> CollectorRegistry:
    """A registry with the client's series alone."""
    made = CollectorRegistry()
    made.register(ClientCollector(live))
    return made


@contextlib.contextmanager
def serve_metrics(live: Live, port: int | None) -> Iterator[None]:
    """Serve the series on a loopback port for the length of a ``with`` block; nothing without a port."""
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry(live))
    except OSError as error:
        raise ConfigError(f"Cannot serve metrics on port {port}: {error.strerror}.") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
