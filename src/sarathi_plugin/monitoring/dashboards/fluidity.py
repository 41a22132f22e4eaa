"""What users feel: deadlines met, stalls, latencies."""

from __future__ import annotations

from sarathi_plugin.monitoring.dashboards.common import (
    CLASS,
    COUNT,
    ENGINE,
    PER_SECOND,
    RATE,
    RATIO,
    SECONDS,
    SHARE,
    TOKENS_PER_SECOND,
    Limit,
    Query,
    Unit,
    buckets,
    graph,
    number,
    quantile,
    quantiles,
    render,
)
from sarathi_plugin.monitoring.objective import FAST_BURN, OBJECTIVE, OPEN_STALL_S, THRESHOLD

BY = "{{slo_class}}"
STALLED = Unit("short", "streams (s per s)")


def share(good: str, bad: str, labels: str, by: str, window: str = RATE) -> str:
    """Good as a share of good and bad."""
    sums = [f"sum by ({by}) (rate({name}{{{labels}}}{window}))" for name in (good, bad)]
    return f"{sums[0]} / ({sums[0]} + {sums[1]} > 0)"


def ratio(part: str, whole: str, labels: str, by: str, window: str = RATE) -> str:
    """A part as a share of the whole."""
    sums = [f"sum by ({by}) (rate({name}{{{labels}}}{window}))" for name in (part, whole)]
    return f"{sums[0]} / ({sums[1]} > 0)"


DEADLINES = ("sarathi_deadlines_met_total", "sarathi_deadlines_missed_total")
COMPLETIONS = ("sarathi_completion_deadlines_met_total", "sarathi_completion_deadlines_missed_total")
REQUESTS = ("sarathi_fluid_requests_total", "sarathi_requests_finished_total")


def now() -> list[object]:
    """The row of numbers."""
    return [
        number("Fluidity-index, 5 minutes", SHARE, share(*DEADLINES, CLASS, "", "[5m]"),
               "Share of token deadlines met.", limit=Limit(THRESHOLD, below=True), decimals=1),
        number("Fluid requests, 1 hour", SHARE, ratio(*REQUESTS, CLASS, "", "[1h]"),
               "Share of ended requests that met at least 0.9 of their deadlines.",
               limit=Limit(OBJECTIVE, below=True), alert="SarathiFluidityBurnFast", decimals=1),
        number("Overdue now", COUNT, f"sum(sarathi_requests_overdue{{{CLASS}}})",
               "Live requests past the deadline of their next token, at this moment.", limit=Limit(1)),
        number("Oldest overdue", SECONDS, f"max(sarathi_oldest_overdue_seconds{{{CLASS}}})",
               "How long the worst of them has been past its deadline.", limit=Limit(OPEN_STALL_S),
               alert="SarathiOpenStall", decimals=1),
        number("Longest stall, 1 minute", SECONDS, f"max(sarathi_longest_stall_last_minute_seconds{{{ENGINE}}})",
               "The longest stall that ended in the last minute; most are shorter than a scrape.", limit=Limit(1),
               decimals=2),
        number("Fluid token rate", TOKENS_PER_SECOND, f"min(sarathi_fluid_token_rate{{{ENGINE}}})",
               "Tokens per second that 99 % of the last 256 requests could be promised, of the D_d that are tracked.",
               decimals=0),
    ]  # fmt: skip


def deadlines() -> list[object]:
    """Deadlines and the objective."""
    burns = [
        Query(f'max by (slo_class) (sarathi:fluidity_burn:rate{window}{{model_name=~"$model", slo_class=~"$class"}})',
              f"{BY} {window}")
        for window in ("5m", "1h")
    ]  # fmt: skip
    return [
        graph("Fluidity-index", SHARE, [Query(share(*DEADLINES, CLASS, "slo_class"), BY)],
              "Token deadlines met as a share of all that fell due.", limit=Limit(THRESHOLD, below=True), top=1),
        graph("Fluid requests", SHARE, [Query(ratio(*REQUESTS, CLASS, "slo_class"), BY)],
              f"Requests with a fluidity-index of at least 0.9. The objective is {OBJECTIVE:.0%}.",
              limit=Limit(OBJECTIVE, below=True), top=1, alert="SarathiFluidityBurnFast"),
        graph("Burn rate of the objective", RATIO, burns,
              "How many times faster than allowed the error budget is spent. The dashed line: somebody is woken.",
              limit=Limit(FAST_BURN[0].factor), alert="SarathiFluidityBurnFast"),
    ]  # fmt: skip


def stalls() -> list[object]:
    """What stands still now, and what did."""
    rate = f"sum by (slo_class) (rate({{}}{{{{{CLASS}}}}}{RATE}))"
    return [
        graph("Overdue requests", COUNT, [Query(f"sum by (slo_class) (sarathi_requests_overdue{{{CLASS}}})", BY)],
              "Live requests past the deadline of their next token; seen also while a step takes ten seconds."),
        graph("Age of the oldest overdue", SECONDS,
              [Query(f"max by (slo_class) (sarathi_oldest_overdue_seconds{{{CLASS}}})", BY)],
              "How long the worst overdue request has been past its deadline.", limit=Limit(OPEN_STALL_S),
              alert="SarathiOpenStall"),
        graph("Longest stall of the last minute", SECONDS,
              [Query(f"max by (engine) (sarathi_longest_stall_last_minute_seconds{{{ENGINE}}})", "engine {{engine}}")],
              "Of the stalls that have ended."),
        graph("Deadlines missed", PER_SECOND, [Query(rate.format("sarathi_deadlines_missed_total"), BY)],
              "A stall of k periods of D_d is k misses, counted when the token comes."),
        graph("Time in stalls", STALLED, [Query(rate.format("sarathi_stall_seconds_total"), BY)],
              "Seconds that streams spent past their deadline, per second: 3 is three streams frozen all the time."),
        graph("Length of stalls", SECONDS, quantiles("sarathi_stall_duration_seconds", CLASS, "slo_class"),
              "Of the stalls that ended in the interval."),
    ]  # fmt: skip


def latency() -> list[object]:
    """Latencies and counts."""
    by_status = f"sum by (status) (rate(sarathi_requests_finished_total{{{CLASS}}}{RATE}))"
    late = [
        Query(
            quantile(0.99, "sarathi_scheduling_delay_seconds", CLASS, "slo_class"), f"{BY} until scheduled"
        ),
        Query(quantile(0.99, "sarathi_prefill_delay_seconds", CLASS, "slo_class"), f"{BY} past D_p"),
    ]
    accepted = ratio("sarathi_target_fluid_requests_total", "sarathi_target_requests_total", ENGINE, "tbt_ms")
    whole = share(*COMPLETIONS, CLASS, "slo_class")
    return [
        graph("Time between tokens", SECONDS, quantiles("sarathi_tbt_seconds", CLASS, "slo_class"), "Per token."),
        graph("Time to first token", SECONDS, quantiles("sarathi_ttft_seconds", CLASS, "slo_class"),
              "From arrival."),
        buckets("Time between tokens, all of them", SECONDS, "sarathi_tbt_seconds", CLASS,
                "How many gaps between tokens were that long."),
        graph("Delays of first tokens, P99", SECONDS, late,
              "From arrival to the first scheduled chunk, and how far past its deadline D_p the first token came."),
        graph("Live acceptance curve", SHARE, [Query(accepted, "D_d {{tbt_ms}} ms")],
              "Requests that would be fluid at another D_d, first token not judged.", top=1),
        graph("Requests ended", PER_SECOND, [Query(by_status, "{{status}}")], "By how they ended.", stacked=True),
        graph("Output tokens", TOKENS_PER_SECOND,
              [Query(f"sum by (slo_class) (rate(sarathi_output_tokens_total{{{CLASS}}}{RATE}))", BY)],
              "Tokens emitted.", stacked=True, width=12),
        graph("Completion deadlines met", SHARE, [Query(whole, BY)],
              "Of classes that are due as a whole (batch).", top=1, width=12),
    ]  # fmt: skip


def build() -> str:
    """The dashboard as JSON."""
    rows = [("Now", now()), ("Deadlines", deadlines()), ("Stalls", stalls()), ("Latency", latency())]
    about = "What users feel: deadlines met, stalls while they last, latencies per token."
    return render("Sarathi: Fluidity", "sarathi-fluidity", about, rows)
