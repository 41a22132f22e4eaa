"""Which series rules and dashboards may name. An unknown one is an error where they are built, not an empty panel."""

from __future__ import annotations

import re

from sarathi_plugin.telemetry.catalogue import CATALOGUE

VLLM = {
    "vllm:e2e_request_latency_seconds": "histogram",
    "vllm:generation_tokens_total": "counter",
    "vllm:inter_token_latency_seconds": "histogram",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:prompt_tokens_total": "counter",
    "vllm:time_to_first_token_seconds": "histogram",
}
"""What we use of vLLM's own series, and of which type it is."""

NAME = re.compile(r"(?<![\w:\"])(?:sarathi_|sarathi:|vllm:)[a-z0-9_:]*")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def exported() -> set[str]:
    """Every series a server exports that may be used: ours, and what we use of vLLM's."""
    kinds = {metric.full_name: metric.kind for metric in CATALOGUE} | VLLM
    return {name + suffix for name, kind in kinds.items() for suffix in SUFFIXES[kind]}


def used(expr: str) -> set[str]:
    """The series that a PromQL expression names, exported or recorded."""
    return set(NAME.findall(expr))


def checked(expr: str, recorded: frozenset[str] = frozenset()) -> str:
    """The expression itself. Raises ValueError when it names a series that nobody exports or records."""
    unknown = used(expr) - exported() - recorded
    if unknown:
        raise ValueError(f"no such series: {', '.join(sorted(unknown))}, in {expr}")
    return expr
