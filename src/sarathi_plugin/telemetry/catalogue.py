"""The one table of metrics. Prometheus series, the docs table and the golden list of names all come from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from sarathi_plugin.records import RequestStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "sarathi_"
LATENCY_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5,
    0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0,
)  # fmt: skip
FLUIDITY_BUCKETS = (0.1, 0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)
TOKEN_BUCKETS = (1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0)
ERROR_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
HOST_BUCKETS = (0.00002, 0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01)

Kind = Literal["counter", "histogram", "gauge"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family. ``labels`` come after ``model_name`` and ``engine``, which every series has."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as exported; counters end in ``_total``."""
        return PREFIX + self.name + ("_total" if self.kind == "counter" else "")


SLO = ("slo_class",)
C: Final = "counter"
H: Final = "histogram"
G: Final = "gauge"

CATALOGUE: tuple[Metric, ...] = (
    Metric("deadlines_met", C, "Token deadlines met.", SLO),
    Metric("deadlines_missed", C, "Token deadlines missed; a stall of k periods is k misses.", SLO),
    Metric("output_tokens", C, "Tokens emitted.", SLO),
    Metric("requests_finished", C, "Requests that ended, by how.", (*SLO, "status")),
    Metric("fluid_requests", C, "Requests that ended with no error and a fluidity-index of at least 0.9.", SLO),
    Metric("request_fluidity_index", H, "Fluidity-index of requests that ended.", SLO, FLUIDITY_BUCKETS),
    Metric("tbt_seconds", H, "Time between tokens, per token (a bundle gives zeros).", SLO, LATENCY_BUCKETS),
    Metric("ttft_seconds", H, "Arrival to first token.", SLO, LATENCY_BUCKETS),
    Metric("prefill_delay_seconds", H, "First token past its deadline; 0 when on time.", SLO, LATENCY_BUCKETS),
    Metric("scheduling_delay_seconds", H, "Arrival to first scheduled chunk.", SLO, LATENCY_BUCKETS),
    Metric("stall_seconds", C, "Time that streams spent past their deadline.", SLO),
    Metric("stall_duration_seconds", H, "Length of stalls, when they end.", SLO, LATENCY_BUCKETS),
    Metric("completion_deadlines_met", C, "Requests finished by their completion deadline.", SLO),
    Metric("completion_deadlines_missed", C, "Requests that did not finish by their completion deadline.", SLO),
    Metric("requests_overdue", G, "Live requests past their next deadline now.", SLO),
    Metric("oldest_overdue_seconds", G, "How long the worst overdue request has been overdue.", SLO),
    Metric("longest_stall_last_minute_seconds", G, "Longest stall that ended in the last minute."),
    Metric("target_requests", C, "Requests judged at another D_d, first token not judged.", ("tbt_ms",)),
    Metric("target_fluid_requests", C, "Of those, the ones with a fluidity-index of at least 0.9.", ("tbt_ms",)),
    Metric("fluid_token_rate", G, "1 / smallest tracked D_d that suits 99 % of the last 256 requests; 0: none."),
    Metric("step_duration_seconds", H, "Engine step time by kind.", ("kind",), LATENCY_BUCKETS),
    Metric("step_prefill_tokens", C, "Prompt tokens computed, by the kind of step that carried them.", ("kind",)),
    Metric("step_decode_tokens", C, "Decode tokens computed, by the kind of step that carried them.", ("kind",)),
    Metric("step_budget_tokens", H, "Token budget chosen for a step.", (), TOKEN_BUCKETS),
    Metric("step_budget_limit", C, "Steps by what bound their budget.", ("limit",)),
    Metric("step_prediction_error_ratio", H, "Prediction error as a share of the step time.", ("kind",), ERROR_BUCKETS),
    Metric("step_predicted_seconds", C, "Sum of predicted step times.", ("kind",)),
    Metric("policy_seconds", H, "Our own time per step: adapt, plan, track, record.", (), HOST_BUCKETS),
    Metric("preemptions", C, "Requests preempted for KV memory."),
    Metric("relegations", C, "Requests stepped back because their deadline is lost."),
    Metric("decodes_over_budget", C, "Steps whose decodes alone exceeded a fixed budget; the decodes ran."),
    Metric("policy_fallbacks", C, "Steps on which the policy failed and stock decisions ran."),
    Metric("policy_enabled", G, "1 while the policy decides, 0 after it was switched off for failing."),
    Metric("plugin_errors", C, "Failures of a plugin's hook.", ("plugin",)),
    Metric("plugin_enabled", G, "1 while a plugin is called, 0 after it was switched off for failing.", ("plugin",)),
    Metric("unknown_slo_class", C, "Requests that reached the engine with an unknown SLO class; served as default."),
    Metric("untracked_requests", C, "Requests served but not measured: more than 65536 alive at once."),
    Metric("slo_tbt_seconds", G, "D_d: time allowed per further token.", SLO),
    Metric("target_below_decode_step", G, "1 when D_d is below the engine's own decode step.", SLO),
    Metric("start_time_seconds", G, "When serving began, in Unix time; every restart changes it."),
    Metric("build_info", G, "Always 1; labels say what runs.", ("version", "vllm_version", "policy", "slo", "curve")),
)  # fmt: skip

BY_NAME = {metric.name: metric for metric in CATALOGUE}


KNOWN_VALUES: Mapping[str, tuple[str, ...]] = {
    "status": get_args(RequestStatus),
    "kind": ("decode", "mixed", "prefill"),
}
"""Values of labels that are the same everywhere. Their series exist from the start: a rate needs one at 0."""


def markdown() -> str:
    """The docs table."""
    head = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n"
    rows = (f"| `{m.full_name}` | {m.kind} | {', '.join(m.labels) or '-'} | {m.help} |" for m in CATALOGUE)
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(markdown())  # noqa: T201 - the generated block of docs/metrics.md
