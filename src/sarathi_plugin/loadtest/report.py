"""The HTML report of a run: verdict, figures, distributions, course; one file without scripts."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.loadtest.chart import Line, cdf, chart
from sarathi_plugin.loadtest.console import counted
from sarathi_plugin.loadtest.faults import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sarathi_plugin.loadtest.live import Point
    from sarathi_plugin.loadtest.result import Result

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:980px;margin:2em auto;padding:0 1em;color:#1a1a1a}
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:1.6em}
table{border-collapse:collapse;font-size:14px}td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}
.charts{display:grid;grid-template-columns:1fr 1fr;gap:12px}svg{width:100%;font:11px system-ui,sans-serif}
svg .title{font-weight:600;font-size:12px}svg .axis{stroke:#555}svg .grid{stroke:#e5e5e5}
.passed{color:#00704a}.failed,.invalid,.stopped{color:#b00020}
"""


def report(result: Result, course: Sequence[Point]) -> str:
    """The report as HTML text. course: what ended when, one point an interval."""
    data = result.as_json()
    run = data["run"]
    title = f"{run['workload']} on {run['model']}"
    body = [
        f"<h1>{escape(title)}: <span class='{result.verdict}'>{result.verdict}</span></h1>",
        *(f"<p class='invalid'>Invalid: {escape(reason)}</p>" for reason in data["invalid"]),
        *(f"<p class='failed'>Crossed: {escape(reason)}</p>" for reason in data["crossed"]),
        f"<p>{escape(_what(run))}</p>",
        "<h2>Figures</h2>",
        _figures({"all": data["figures"], **data["by_class"]}),
        _faults(data["faults"]),
        "<h2>Distributions and course</h2>",
        f"<div class='charts'>{''.join(_charts(result, course))}</div>",
    ]
    head = f"<meta charset='utf-8'><title>{escape(title)}</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(body)}</body></html>\n"


def _what(run: Mapping[str, Any]) -> str:
    rate = "the workload's own rate" if run["rate"] is None else f"{run['rate']:g} requests/s"
    return (
        f"{run['scheduled']} requests at {rate}, seed {run['seed']}, {run['loop']} loop, "
        f"{counted(len(run['workers']), 'worker')}, sent to {run['url']} ({run['endpoint']}); "
        f"prompts: {run['prompt_lengths']}. {run['unsent']} were not sent, {run['resent']} were sent a "
        "second time, on a new connection. "
        f"Prefill curve {run['prefill_curve']}. "
        f"sarathi-plugin {run['sarathi_plugin']}, Locust {run['locust']}."
    )


ROWS = (
    ("requests", ("requests",), "n"),
    ("failed", ("errors",), "n"),
    ("fluidity-index", ("fluidity_index",), "f"),
    ("requests with fluidity-index >= 0.9", ("fluidity_share",), "%"),
    ("fluid and first token in time", ("slo_share",), "%"),
    ("TTFT P50 / P90 / P99, from the intended time", ("ttft_p50_s", "ttft_p90_s", "ttft_p99_s"), "ms"),
    ("the same from the sending", ("ttft_sent_p50_s", "ttft_sent_p90_s", "ttft_sent_p99_s"), "ms"),
    ("end to end P50 / P90 / P99, from the intended time", ("e2e_p50_s", "e2e_p90_s", "e2e_p99_s"), "ms"),
    ("the same from the sending", ("e2e_sent_p50_s", "e2e_sent_p90_s", "e2e_sent_p99_s"), "ms"),
    ("time between tokens P50 / P90 / P99", ("tbt_p50_s", "tbt_p90_s", "tbt_p99_s"), "ms"),
    ("longest freeze", ("longest_freeze_s",), "ms"),
    ("stalls", ("stalls",), "n"),
    ("time stood still, all streams", ("stall_s",), "ms"),
    ("arrivals a second, meant / sent", ("arrivals_per_s", "sent_per_s"), "f"),
    ("output tokens a second", ("output_tokens_per_s",), "f"),
    ("fluid token rate (for 99 % of requests)", ("fluid_tokens_per_s",), "f"),
    ("sent late, P99", ("dispatch_lag_p99_s",), "ms"),
)  # fmt: skip


def _figures(columns: Mapping[str, Mapping[str, float | None]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *columns))
    rows = []
    for label, names, unit in ROWS:
        cells = (
            " / ".join(_cell(figures[name], unit) for name in names) + (" ms" if unit == "ms" else "")
            for figures in columns.values()
        )
        rows.append(f"<tr><td>{escape(label)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return {"n": f"{value:.0f}", "%": f"{value:.1%}", "ms": f"{value * 1000:,.1f}", "f": f"{value:.4g}"}[unit]


def _faults(faults: Mapping[str, int]) -> str:
    if not faults:
        return ""
    rows = "".join(
        f"<tr><td>{escape(kind)}</td><td>{count}</td><td>{escape(KINDS.get(kind, ''))}</td></tr>"
        for kind, count in faults.items()
    )
    return (
        f"<h2>Failed requests by kind</h2><table><tr><th>kind</th><th>count</th><th></th></tr>{rows}</table>"
    )


def _charts(result: Result, course: Sequence[Point]) -> list[str]:
    names = sorted({t.slo_class for t in result.timelines})
    groups = {name: [t for t in result.timelines if t.slo_class == name] for name in names}
    ttft = [cdf(n, [t.ttft_ns / NS_PER_S for t in g if t.ttft_ns is not None]) for n, g in groups.items()]
    tbt = [cdf(n, [gap / NS_PER_S * 1000 for t in g for gap in t.gaps_ns]) for n, g in groups.items()]
    fluidity = [cdf(n, [t.fluidity_index for t in g]) for n, g in groups.items()]
    sent = sorted(t.sent_ns - t.arrival_ns for t in result.timelines if t.sent_ns is not None)
    return [
        chart("Time to first token, share of requests", "seconds from the intended time", ttft, log_x=True, y_top=1),
        chart("Time between tokens, share of tokens", "milliseconds", tbt, log_x=True, y_top=1),
        chart("Fluidity-index, share of requests", "fluidity-index", fluidity, x_range=(0, 1), y_top=1),
        chart("Sent late, share of requests", "milliseconds", [cdf("client", [ns / 1e6 for ns in sent])], y_top=1),
        chart(
            "TTFT of the requests that ended, seconds",
            "seconds after the start",
            [
                Line("P50", [(p.at_s, p.ttft_p50_s) for p in course]),
                Line("P99", [(p.at_s, p.ttft_p99_s) for p in course]),
            ],
        ),
        chart(
            "Fluidity-index of the requests that ended",
            "seconds after the start",
            [Line("all classes", [(p.at_s, p.fluidity_index) for p in course])],
            y_top=1,
        ),
    ]  # fmt: skip
