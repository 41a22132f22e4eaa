"""Alerts: what is compared with what, how urgent it is, and the runbook that says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sarathi_plugin.monitoring.names import checked
from sarathi_plugin.monitoring.objective import (
    FAST_BURN,
    MIN_REQUESTS,
    MIN_STEPS_PER_S,
    OBJECTIVE,
    OPEN_STALL_S,
    PREDICTION_ERROR,
    SLOW_BURN,
    Burn,
)
from sarathi_plugin.monitoring.recording import ENGINE, RECORDED, by_class

JOB = "vllm"
RUNBOOKS = "{{ $externalURL }}/user/runbooks.md"
"""Prometheus serves the runbooks itself (``--web.user-assets``), so the link works wherever Prometheus does."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A value compared with a threshold. The value alone has data on every healthy server, which a test holds us to."""

    value: str
    compare: str
    threshold: float

    def __str__(self) -> str:
        return f"{self.value} {self.compare} {self.threshold:g}"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. join: how its conditions combine, ``{0}`` being the first."""

    name: str
    severity: Literal["critical", "warning", "info"]
    summary: str
    description: str
    conditions: tuple[Condition, ...]
    join: str = "{0}"
    lasting: str = "0s"
    keep_firing: str = ""

    @property
    def expr(self) -> str:
        """The whole expression. Raises ValueError when it names an unknown series."""
        return checked(self.join.format(*self.conditions), RECORDED)

    @property
    def anchor(self) -> str:
        """Of its section in the runbooks."""
        return self.name.lower()


def burning(pairs: tuple[Burn, ...], enough_in: str) -> tuple[tuple[Condition, ...], str]:
    """Conditions and their join: any pair of windows burns, and enough requests ended to say so."""
    conditions = [
        Condition(f"sarathi:fluidity_burn:rate{window}", ">", pair.factor)
        for pair in pairs
        for window in (pair.short, pair.long)
    ]
    ended = by_class(f"increase(sarathi_requests_finished_total[{enough_in}])")
    join = "(({0} and {1}) or ({2} and {3})) and {4}"
    return (*conditions, Condition(ended, ">=", MIN_REQUESTS)), join


def burn_alert(name: str, pairs: tuple[Burn, ...], severity: Literal["critical", "warning"]) -> Alert:
    """A multi-window alert on the objective."""
    conditions, join = burning(pairs, pairs[0].long)
    windows = " or ".join(f"{pair.factor:g} times over both {pair.short} and {pair.long}" for pair in pairs)
    return Alert(
        name,
        severity,
        "Requests of class {{ $labels.slo_class }} on {{ $labels.model_name }} lose their fluidity "
        "{{ $value | printf \"%.3g\" }} times faster than the objective allows.",
        f"The objective is that {OBJECTIVE:.0%} of the requests meet at least 0.9 of their token deadlines. Its error "
        f"budget burns {windows}.",
        conditions,
        join,
    )  # fmt: skip


WHERE = "{{ $labels.model_name }} ({{ $labels.instance }}, engine {{ $labels.engine }})"

ALERTS: tuple[Alert, ...] = (
    burn_alert("SarathiFluidityBurnFast", FAST_BURN, "critical"),
    burn_alert("SarathiFluidityBurnSlow", SLOW_BURN, "warning"),
    Alert(
        "SarathiOpenStall",
        "critical",
        "A request of class {{ $labels.slo_class }} on {{ $labels.model_name }} waits for its next token, "
        "{{ $value | humanizeDuration }} past its deadline.",
        f"Somebody's answer stands still now, more than {OPEN_STALL_S} s past the deadline of its next token. Without "
        "a token nothing is counted yet: rates of misses and latency histograms show it only when it is over.",
        (Condition("max by (model_name, slo_class) (sarathi_oldest_overdue_seconds)", ">", OPEN_STALL_S),),
        keep_firing="1m",
    ),
    Alert(
        "SarathiPredictionError",
        "warning",
        f"Step times on {WHERE} miss their prediction by {{{{ $value | humanizePercentage }}}} on average.",
        "The policy sizes chunks by predicted step times. While they are this wrong, steps are too long (tokens come "
        "late) or too short (prompts wait for nothing).",
        (
            Condition("sarathi:step_prediction_error:mean5m", ">", PREDICTION_ERROR),
            Condition(
                f"sum by ({ENGINE}) (rate(sarathi_step_prediction_error_ratio_count[5m]))", ">=", MIN_STEPS_PER_S
            ),
        ),
        "{0} and {1}",
        lasting="10m",
    ),
    Alert(
        "SarathiPolicyFallbacks",
        "warning",
        f"The scheduling policy failed on {{{{ $value | printf \"%.0f\" }}}} steps in 5 minutes on {WHERE}.",
        "Those steps ran on vLLM's stock decisions. Three failures in a row switch the policy off. The engine's log "
        "has the traceback of the first.",
        (Condition("increase(sarathi_policy_fallbacks_total[5m])", ">", 0),),
    ),
    Alert(
        "SarathiPolicyOff",
        "critical",
        f"The scheduling policy is switched off on {WHERE}.",
        "It failed three times in a row. The server answers, but on vLLM's stock scheduling: long prompts stall "
        "streams again. It stays so until the server is restarted.",
        (Condition("sarathi_policy_enabled", "==", 0),),
    ),
    Alert(
        "SarathiPluginOff",
        "warning",
        f"The plugin {{{{ $labels.plugin }}}} is switched off on {WHERE}.",
        "One of its hooks failed three times in a row; it is not called any more until the server is restarted. "
        "Without sarathi-tracker there are no new sarathi_ series.",
        (Condition("sarathi_plugin_enabled", "==", 0),),
    ),
    Alert(
        "SarathiDeadlineUnreachable",
        "info",
        f"Class {{{{ $labels.slo_class }}}} allows less time per token than a decode step takes on {WHERE}.",
        "No scheduler can meet this D_d on this engine: its requests are never fluid.",
        (Condition("sarathi_target_below_decode_step", "==", 1),),
        lasting="5m",
    ),
    Alert(
        "SarathiScrapeGone",
        "critical",
        "Prometheus gets no metrics from {{ if $labels.instance }}{{ $labels.instance }}{{ else }}any vLLM server"
        "{{ end }}.",
        "The server is down, hangs, or is not reachable; or no target of the job is left. While it lasts no other "
        "alert of ours can fire for it.",
        (Condition(f'up{{job="{JOB}"}}', "==", 0),),
        f'{{0}} or absent(up{{{{job="{JOB}"}}}})',
        lasting="1m",
    ),
)  # fmt: skip
