"""Two arms side by side. An arm is one server (or several alike): the label ``instance`` tells them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.monitoring.dashboards.common import (
    CLASS,
    COUNT,
    ENGINE,
    SECONDS,
    SHARE,
    TOKENS_PER_SECOND,
    Limit,
    Query,
    choice,
    graph,
    listing,
    number,
    quantile,
    quantiles,
    render,
)
from sarathi_plugin.monitoring.dashboards.fluidity import BY, DEADLINES, REQUESTS, ratio, share
from sarathi_plugin.monitoring.objective import OBJECTIVE, OPEN_STALL_S, THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Callable

ARMS = {"A": 'instance=~"$arm_a"', "B": 'instance=~"$arm_b"'}
RANGE = "[$__range]"


def pairs(panel: Callable[[str, str], object]) -> list[object]:
    """The same panel for arm A on the left and arm B on the right."""
    return [panel(name, labels) for name, labels in ARMS.items()]


def whole(arm: str, labels: str) -> list[object]:
    """Numbers over the whole time range."""
    own = f"{CLASS}, {labels}"
    p99 = "histogram_quantile(0.99, sum by (le) (rate({}_bucket{{{}}}{})))"
    return [
        number(f"{arm}: fluidity-index, all", SHARE, share(*DEADLINES, own, "", RANGE),
               "Token deadlines met, over the whole time range.", limit=Limit(THRESHOLD, below=True),
               decimals=1, width=3),
        number(f"{arm}: fluid requests", SHARE, ratio(*REQUESTS, own, "", RANGE),
               "Requests with at least 0.9 of their deadlines met, over the whole time range.",
               limit=Limit(OBJECTIVE, below=True), decimals=1, width=3),
        number(f"{arm}: TBT P99", SECONDS, p99.format("sarathi_tbt_seconds", own, RANGE),
               "Time between tokens, over the whole time range.", decimals=3, width=3),
        number(f"{arm}: TTFT P99", SECONDS, p99.format("sarathi_ttft_seconds", own, RANGE),
               "Time to first token, over the whole time range.", decimals=2, width=3),
    ]  # fmt: skip


def felt() -> list[object]:
    """What users of each arm feel."""
    return [
        *pairs(lambda arm, labels: graph(
            f"{arm}: fluidity-index", SHARE, [Query(share(*DEADLINES, f"{CLASS}, {labels}", "slo_class"), BY)],
            "Token deadlines met.", limit=Limit(THRESHOLD, below=True), top=1, width=12)),
        *pairs(lambda arm, labels: graph(
            f"{arm}: oldest overdue", SECONDS,
            [Query(f"max by (slo_class) (sarathi_oldest_overdue_seconds{{{CLASS}, {labels}}})", BY)],
            "Seen while it lasts.", limit=Limit(OPEN_STALL_S), alert="SarathiOpenStall", width=12)),
        *pairs(lambda arm, labels: graph(
            f"{arm}: time between tokens", SECONDS,
            quantiles("sarathi_tbt_seconds", f"{CLASS}, {labels}", "slo_class"), "Per token.", width=12)),
        *pairs(lambda arm, labels: graph(
            f"{arm}: time to first token", SECONDS,
            quantiles("sarathi_ttft_seconds", f"{CLASS}, {labels}", "slo_class"), "From arrival.", width=12)),
    ]  # fmt: skip


def engine() -> list[object]:
    """What each engine does."""
    return [
        *pairs(lambda arm, labels: graph(
            f"{arm}: step time", SECONDS, quantiles("sarathi_step_duration_seconds", f"{ENGINE}, {labels}", "kind"),
            "By kind of step.", width=12)),
        *pairs(lambda arm, labels: listing(
            f"{arm}: what runs", f"sarathi_build_info{{{ENGINE}, {labels}}}", ("job", "engine", "curve"),
            "Policy and versions of the arm.", width=12)),
    ]  # fmt: skip


def stock(arm: str, labels: str) -> list[object]:
    """vLLM's own series, which a server without the plugin has too."""
    own = f'model_name=~".*", {labels}'
    rate = "sum(rate({}{{{}}}[$__rate_interval]))"
    tokens = [
        Query(rate.format("vllm:prompt_tokens_total", own), "prompt"),
        Query(rate.format("vllm:generation_tokens_total", own), "output"),
    ]
    latencies = [
        Query(quantile(0.99, "vllm:inter_token_latency_seconds", own), "between outputs P99"),
        Query(quantile(0.99, "vllm:time_to_first_token_seconds", own), "first token P99"),
        Query(quantile(0.5, "vllm:e2e_request_latency_seconds", own), "whole request P50"),
    ]
    queue = [
        Query(f"sum(vllm:num_requests_running{{{own}}})", "running"),
        Query(f"sum(vllm:num_requests_waiting{{{own}}})", "waiting"),
    ]
    return [
        graph(f"{arm}: latency, as vLLM counts it", SECONDS, latencies, "Per streamed output.", width=12),
        graph(f"{arm}: tokens", TOKENS_PER_SECOND, tokens, "Prompt and output.", stacked=True, width=12),
        graph(f"{arm}: requests", COUNT, queue, "In the engine.", width=12),
    ]  # fmt: skip


def build() -> str:
    """The dashboard as JSON."""
    left, right = (stock(arm, labels) for arm, labels in ARMS.items())
    rows = [
        ("Over the whole time range", [*whole(*next(iter(ARMS.items()))), *whole(*list(ARMS.items())[1])]),
        ("What users feel: A left, B right", felt()),
        ("Engines", engine()),
        ("vLLM's own series, also of a server without the plugin", [
            panel for both in zip(left, right, strict=True) for panel in both
        ]),
    ]  # fmt: skip
    values = "label_values(vllm:num_requests_running, instance)"
    arms = [
        choice("arm_a", "Arm A", values, everything=False),
        choice("arm_b", "Arm B", values, everything=False, last=True),
    ]
    about = "Two servers side by side: what their users feel, and what their engines do."
    return render("Sarathi: Compare", "sarathi-compare", about, rows, arms)
