"""From what engines wrote to the document. Pure: time, columns and facts come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.core import NS_PER_MS, NS_PER_S, SloClass
from sarathi_plugin.telemetry.live import document as doc
from sarathi_plugin.telemetry.live.layout import ENGINE_COUNTERS
from sarathi_plugin.telemetry.live.reader import EngineAway, EngineColumns
from sarathi_plugin.telemetry.live.requests import latest_requests
from sarathi_plugin.telemetry.live.sums import EDGES_MS, Moment

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class ServerFacts:
    """What an API server knows of itself. classes: empty when vLLM's own scheduler serves."""

    model: str
    policy: str
    classes: tuple[SloClass, ...]
    plugin_version: str
    vllm_version: str
    stock: bool = False


@dataclass(frozen=True)
class Query:
    """What a viewer wants: one SLO class or all, one engine or all, and the window of the distributions."""

    slo_class: str | None = None
    engine: int | None = None
    window_s: int = 60


def build(
    facts: ServerFacts,
    engines: Sequence[EngineColumns | EngineAway],
    query: Query,
    now_ns: int,
    unix_s: float,
) -> doc.LiveDocument:
    """The document for this viewer."""
    chosen = [e for e in engines if query.engine in (None, e.index)]
    live = [e for e in chosen if isinstance(e, EngineColumns)]
    wanted = [(i, slo) for i, slo in enumerate(facts.classes) if query.slo_class in (None, slo.name)]
    state, message = server_state(facts, engines)
    moment = Moment(live, now_ns)
    return doc.LiveDocument(
        unix_s=unix_s,
        state=state,
        message=message,
        server="-".join(str(e.head["started_ns"]) for e in engines if isinstance(e, EngineColumns)),
        model=facts.model,
        policy=facts.policy,
        plugin_version=facts.plugin_version,
        vllm_version=facts.vllm_version,
        selected_class=query.slo_class,
        selected_engine=query.engine,
        window_s=query.window_s,
        targets=[
            doc.ClassTargets(
                name=s.name, tbt_ms=s.tbt_ns / NS_PER_MS, ttft_slack_ms=s.ttft_slack_ns / NS_PER_MS
            )
            for s in facts.classes
        ],
        engines=[engine_live(e, now_ns) for e in engines],
        classes=[moment.class_live(i, slo, query.window_s) for i, slo in wanted],
        errors=moment.errors(len(facts.classes)),
        edges_ms=EDGES_MS,
        history=moment.history(wanted),
        steps=steps_of(live[0], now_ns) if live else None,
        requests=latest_requests(live, facts.classes, query.slo_class, now_ns),
    )


def server_state(
    facts: ServerFacts, engines: Sequence[EngineColumns | EngineAway]
) -> tuple[doc.ServerState, str]:
    """How much of this can be believed, in a word and in a sentence."""
    if facts.stock:
        return "stock", (
            "This server runs vLLM's own scheduler, which tells nothing of deadlines. Start it with --scheduler NAME."
        )
    away = [e for e in engines if isinstance(e, EngineAway)]
    if not away:
        return "live", ""
    names = ", ".join(str(e.index) for e in away)
    if len(away) < len(engines):
        return "partial", f"No data from engine {names}: the figures leave it out."
    if any(e.gone for e in away):
        return "gone", "The engine has gone: there is nothing live to show."
    return "starting", (
        "No engine has reported yet: the server starts, its engines run on another machine, or shared memory is "
        "refused there (then the server's log says so)."
    )


def engine_live(engine: EngineColumns | EngineAway, now_ns: int) -> doc.EngineLive:
    """One engine's row."""
    if isinstance(engine, EngineAway):
        if engine.gone:
            return doc.EngineLive(index=engine.index, state="gone", message="Its process has ended.")
        return doc.EngineLive(index=engine.index, state="starting", message="Has not reported yet.")
    head, scheduled = engine.head, engine.head["scheduled"]
    total = int(head["total_blocks"])
    done = int(head["done_ns"])
    begun = int(scheduled["step"]) >= 0
    return doc.EngineLive(
        index=engine.index,
        state="live",
        message="",
        step=step_in_flight(head, now_ns),
        last_step_ago_ms=max(0, now_ns - done) / NS_PER_MS if done else None,
        running=int(scheduled["running"]) if begun else 0,
        waiting=int(scheduled["waiting"]) if begun else 0,
        kv_used=(1 - int(scheduled["free_blocks"]) / total if begun else 0.0) if total else None,
        policy_enabled=not engine.totals[-len(ENGINE_COUNTERS) + ENGINE_COUNTERS.index("policy_disabled")],
        longest_stall_last_minute_s=engine.snapshot.longest_stall_ns(now_ns) / NS_PER_S,
    )


def step_in_flight(head: Any, now_ns: int) -> doc.StepInFlight | None:
    """The step that runs now, as it was scheduled."""
    step = head["scheduled"]
    if step["step"] < 0 or step["step"] <= head["done_step"]:
        return None
    if not (step["decode_rows"] or step["prefill_tokens"]):
        return None
    return doc.StepInFlight(
        # A step may begin after the reader looked at the clock.
        running_ms=max(0, now_ns - max(int(step["schedule_ns"]), int(head["done_ns"]))) / NS_PER_MS,
        predicted_ms=int(step["predicted_ns"]) / NS_PER_MS or None,
        decodes=int(step["decode_rows"]),
        prefill_tokens=int(step["prefill_tokens"]),
        budget=int(step["budget"]),
    )


def steps_of(engine: EngineColumns, now_ns: int) -> doc.Steps:
    """The last steps, oldest first."""
    steps = engine.steps
    predicted = steps["predicted_ns"] / NS_PER_MS
    return doc.Steps(
        engine=engine.index,
        ago_ms=((now_ns - steps["end_ns"]) // NS_PER_MS).tolist(),
        duration_ms=np.round((steps["end_ns"] - steps["start_ns"]) / NS_PER_MS, 2).tolist(),
        predicted_ms=[round(p, 2) if p > 0 else None for p in predicted.tolist()],
        decode_tokens=steps["decode_tokens"].tolist(),
        prefill_tokens=steps["prefill_tokens"].tolist(),
        budget=steps["budget"].tolist(),
    )
