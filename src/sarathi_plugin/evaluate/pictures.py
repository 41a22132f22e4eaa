"""The parts of a report that are pictures: capacity curves, distributions, phases, token timelines, steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.evaluate import charts, metrics
from sarathi_plugin.evaluate.document import Chart, Section, Table
from sarathi_plugin.evaluate.metrics import CAPACITY, METRICS
from sarathi_plugin.evaluate.sections import estimate
from sarathi_plugin.load.summary import is_fluid

if TYPE_CHECKING:
    from sarathi_plugin.evaluate.document import Block
    from sarathi_plugin.evaluate.sections import Data

WORST = 4
"""Requests of each arm whose tokens are drawn."""


def capacities(data: Data) -> Section:
    """Share of fluid requests over the load, and capacities where they were searched."""
    results = data.results
    names = [case.name for case in data.wanted.workloads]
    found = {name: {arm: results.fluid_curve(arm, name) for arm in results.arms} for name in names}
    blocks: list[Block] = [
        Chart(
            "capacity",
            charts.curves("capacity", found, results.arms),
            "Requests that stay fluid, over the load; dashed: 99 %; bars: 95 % intervals of the mean.",
        )
    ]
    if data.wanted.capacity:
        metric = METRICS[CAPACITY]
        rows = []
        for arm in results.arms:
            for name in names:
                mean = results.mean(metric, arm, (name, 0.0))
                limits = sorted({str(run.facts["capacity"]["limit"]) for run in results.of(arm, (name, 0.0))})
                rows.append([arm, name, estimate(mean, metric), "; ".join(limits)[:160]])
        share = data.wanted.capacity.share
        caption = f"Highest rate at which {share:.0%} of the requests of every class are fluid, and what broke above it"
        blocks.append(Table(["arm", "workload", "requests/s", "limit"], rows, caption))
    return Section("Capacity", blocks)


def distributions(data: Data) -> Section:
    """CDFs of TTFT, TBT, delay and fluidity at every workload's highest load."""
    blocks: list[Block] = []
    arms = data.results.arms
    for case in data.wanted.workloads:
        cell = (case.name, max(case.loads))
        views = {arm: data.all_of(arm, cell) for arm in arms}
        known = {arm: data.known.get(arm, {}).get(cell, []) for arm in arms}
        panels: list[tuple[str, dict[str, list[float]], charts.Scale]] = [
            ("TTFT, ms", {arm: metrics.ttft_ms(found) for arm, found in views.items()}, "log"),
            ("TBT, ms, per token", {arm: metrics.tbt_ms(found) for arm, found in views.items()}, "log"),
            ("scheduling delay, ms", {arm: metrics.delay_ms(found) for arm, found in known.items()}, "log"),
            ("fluidity-index", {arm: metrics.fluidity(found) for arm, found in views.items()}, "linear"),
        ]
        missing = [arm for arm in arms if not known[arm]]
        note = (
            f" Scheduling delay is not known of {', '.join(missing)}: stock vLLM does not record it."
            if missing
            else ""
        )
        name = f"distributions-{case.name}"
        caption = f"{case.name} at {max(case.loads):g} requests/s, all valid runs together.{note}"
        blocks.append(Chart(name, charts.distributions(name, panels, arms), caption))
    return Section("Distributions", blocks)


def phases(data: Data) -> Section:
    """Waiting, prefill and decode apart."""
    cell = data.hardest
    if cell is None:
        return Section("Waiting, prefill, decode", ["No run."])
    rows, tails = [], {}
    for arm in data.results.arms:
        known, all_ = data.known.get(arm, {}).get(cell, []), data.all_of(arm, cell)
        parts = [metrics.delay_ms(known), metrics.prefill_ms(known), metrics.decode_ms(all_)]
        rows.append(
            [
                arm,
                *(
                    "-" if not p else " / ".join(f"{np.percentile(p, q) / 1000:.2f}" for q in (50, 90, 99))
                    for p in parts
                ),
            ]
        )
        tails[arm] = tuple(float(np.percentile(p, 90)) / 1000 if p else None for p in parts)
    head = ["arm", "waiting, s (P50 / P90 / P99)", "prefill, s", "decode, s"]
    where = f"{cell[0]} at {cell[1]:g} requests/s"
    three = {arm: (found[0], found[1], found[2]) for arm, found in tails.items()}
    chart = Chart("phases", charts.phases("phases", three, "P90"), f"P90, {where}.")
    return Section("Waiting, prefill, decode", [chart, Table(head, rows, where)])


def worst(data: Data) -> Section:
    """Tokens of the requests with the lowest fluidity-index of subject and baseline."""
    cell = data.hardest
    panels = []
    for arm in (data.wanted.baseline, data.wanted.subject):
        found = sorted(data.all_of(arm, cell), key=lambda t: (t.fluidity_index, -t.missed))[:WORST]
        if found:
            rows = [(f"{t.prompt_tokens} tokens, index {t.fluidity_index:.2f}", t) for t in found]
            fluid = sum(map(is_fluid, data.all_of(arm, cell)))
            panels.append(
                (
                    f"{arm}: its {len(found)} worst requests of {len(data.all_of(arm, cell))} ({fluid} fluid)",
                    rows,
                )
            )
    if not panels:
        return Section("The worst requests", ["No valid run."])
    caption = "Grey: waiting for the first token; a tick for every token; red: past its deadline."
    return Section("The worst requests", [Chart("worst", charts.timelines("worst", panels), caption)])


def composition(data: Data) -> Section:
    """What engine steps carried."""
    missing = [arm for arm in data.results.arms if arm not in data.steps]
    note = f"Not recorded of {', '.join(missing)}: vLLM itself keeps no step records." if missing else ""
    if not data.steps:
        return Section("Steps", [note or "No run."])
    chart = charts.steps("steps", data.steps, data.results.arms)
    rows = []
    for arm, records in data.steps.items():
        mixed = [r for r in records if r.shape.kind == "mixed"]
        prefill = sum(r.shape.prefill_tokens for r in records)
        rows.append([
            arm,
            str(len(records)),
            f"{sum(r.shape.kind == 'decode' for r in records) / len(records):.0%}",
            f"{len(mixed) / len(records):.0%}",
            f"{sum(r.shape.prefill_tokens for r in mixed) / prefill:.0%}" if prefill else "-",
            f"{np.median([r.duration_ns for r in records]) / 1e6:.1f} ms",
        ])  # fmt: skip
    head = ["arm", "steps", "decode only", "mixed", "prompt tokens carried in mixed steps", "median duration"]
    where = f"{data.hardest[0]} at {data.hardest[1]:g} requests/s" if data.hardest else ""
    return Section("Steps", [Chart("steps", chart, f"Steps, {where}. {note}"), Table(head, rows)])
