"""What steps carry and why: durations, tokens, budgets, predictions, and the plugin's own health."""

from __future__ import annotations

from sarathi_plugin.monitoring.dashboards.common import (
    COUNT,
    ENGINE,
    PER_SECOND,
    RATE,
    RATIO,
    SECONDS,
    SHARE,
    STATE,
    TOKENS,
    TOKENS_PER_SECOND,
    Limit,
    Query,
    buckets,
    graph,
    listing,
    quantiles,
    render,
)
from sarathi_plugin.monitoring.objective import PREDICTION_ERROR


def rate(name: str, by: str) -> str:
    """Per second, summed."""
    return f"sum by ({by}) (rate({name}{{{ENGINE}}}{RATE}))"


def steps() -> list[object]:
    """What steps take and carry."""
    tokens = [
        Query(rate("sarathi_step_prefill_tokens_total", "kind"), "prompt, in {{kind}} steps"),
        Query(rate("sarathi_step_decode_tokens_total", "kind"), "decode, in {{kind}} steps"),
    ]
    return [
        graph("Step time", SECONDS, quantiles("sarathi_step_duration_seconds", ENGINE, "kind"),
              "By kind: decodes alone, decodes with prompt tokens, prompt tokens alone."),
        graph("Steps", PER_SECOND, [Query(rate("sarathi_step_duration_seconds_count", "kind"), "{{kind}}")],
              "By kind.", stacked=True),
        graph("Tokens carried", TOKENS_PER_SECOND, tokens, "Prompt and decode, by the kind of step.", stacked=True),
    ]  # fmt: skip


def budget() -> list[object]:
    """How large steps were allowed to be, and what bound them."""
    limits = Query(rate("sarathi_step_budget_limit_total", "limit"), "{{limit}}")
    return [
        buckets("Token budget of steps", TOKENS, "sarathi_step_budget_tokens", ENGINE,
                "How many steps had a budget of so many tokens."),
        graph("What bound the budget", PER_SECOND, [limits],
              "Steps by limit: docs/policies.md says what the policy's limits mean.", stacked=True),
        graph("Predicted step time as a share of D_d", SHARE,
              [Query('max by (slo_class) (sarathi:step_share_of_deadline:rate1m'
                     f'{{{ENGINE}, slo_class=~"$class"}})', "{{slo_class}}")],
              "Mean over a minute. Above 100 % tokens are late unless earlier ones banked slack.", limit=Limit(1)),
    ]  # fmt: skip


def prediction() -> list[object]:
    """How well step times are foretold, and what planning costs."""
    measured, predicted = (
        rate(f"sarathi_step_{name}", "kind") for name in ("duration_seconds_sum", "predicted_seconds_total")
    )
    bias = f"{measured} / ({predicted} > 0)"
    mean = f"max by (model_name, engine) (sarathi:step_prediction_error:mean5m{{{ENGINE}}})"
    return [
        graph("Prediction error", SHARE,
              [*quantiles("sarathi_step_prediction_error_ratio", ENGINE), Query(mean, "mean, 5 minutes")],
              "|predicted - measured| / measured, over steps.", limit=Limit(PREDICTION_ERROR),
              alert="SarathiPredictionError"),
        graph("Measured over predicted", RATIO, [Query(bias, "{{kind}}")],
              "Above 1 steps take longer than predicted: chunks are too large."),
        graph("Our own time per step", SECONDS, quantiles("sarathi_policy_seconds", ENGINE),
              "Adapt, plan, track, record."),
    ]  # fmt: skip


def pressure() -> list[object]:
    """What does not fit."""
    events = [
        Query(rate("sarathi_preemptions_total", "engine"), "preempted, engine {{engine}}"),
        Query(rate("sarathi_relegations_total", "engine"), "stepped back, engine {{engine}}"),
        Query(rate("sarathi_decodes_over_budget_total", "engine"), "decodes over budget, engine {{engine}}"),
    ]
    queue = [
        Query(f"sum by (engine) (vllm:num_requests_running{{{ENGINE}}})", "running, engine {{engine}}"),
        Query(f"sum by (engine) (vllm:num_requests_waiting{{{ENGINE}}})", "waiting, engine {{engine}}"),
    ]
    memory = Query(f"max by (engine) (vllm:kv_cache_usage_perc{{{ENGINE}}})", "engine {{engine}}")
    return [
        graph("Requests", COUNT, queue, "vLLM's own count."),
        graph("KV cache in use", SHARE, [memory], "Of all blocks.", top=1),
        graph("Preemptions, relegations", PER_SECOND, events,
              "Requests that lost their memory or their turn; steps whose decodes alone exceeded a fixed budget."),
    ]  # fmt: skip


def health() -> list[object]:
    """Whether the plugin does what it was installed for."""
    per_5m = f"sum by (engine) (increase({{}}{{{{{ENGINE}}}}}[5m]))"
    failures = [
        Query(per_5m.format("sarathi_policy_fallbacks_total"), "policy fallbacks"),
        Query(f"sum by (plugin) (increase(sarathi_plugin_errors_total{{{ENGINE}}}[5m]))", "{{plugin}}"),
    ]
    odd = [
        Query(per_5m.format("sarathi_unknown_slo_class_total"), "unknown SLO class"),
        Query(per_5m.format("sarathi_untracked_requests_total"), "not measured"),
    ]
    on = [
        Query(f"min by (engine) (sarathi_policy_enabled{{{ENGINE}}})", "policy, engine {{engine}}"),
        Query(f"min by (plugin) (sarathi_plugin_enabled{{{ENGINE}}})", "{{plugin}}"),
    ]
    unreachable = f'max by (slo_class) (sarathi_target_below_decode_step{{{ENGINE}, slo_class=~"$class"}})'
    per = COUNT._replace(axis="in 5 minutes")
    return [
        graph("Failures", per, failures, "Steps on stock decisions, and failures of plugins.",
              alert="SarathiPolicyFallbacks", width=6),
        graph("Switched on", STATE, on, "0 after three failures in a row, until the restart.", top=1,
              alert="SarathiPolicyOff", width=6),
        graph("Requests not as expected", per, odd, "Served as the default class; served but not measured.", width=6),
        graph("D_d that cannot be met", STATE._replace(axis="1: cannot be met"), [Query(unreachable, "{{slo_class}}")],
              "1 where a decode step alone takes longer than the class allows per token.", top=1,
              alert="SarathiDeadlineUnreachable", width=6),
        listing("What runs", f"sarathi_build_info{{{ENGINE}}}", ("job",), "Versions, policy, SLO, prefill curve."),
    ]  # fmt: skip


def build() -> str:
    """The dashboard as JSON."""
    rows = [
        ("Steps", steps()),
        ("Budget", budget()),
        ("Prediction and cost", prediction()),
        ("Pressure", pressure()),
        ("Health of the plugin", health()),
    ]
    about = "What every step carries, what bound it, how well it was foretold, and what planning it costs."
    return render("Sarathi: Scheduler", "sarathi-scheduler", about, rows)
