"""The latest requests of the document: a token timeline each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sarathi_plugin.core import NS_PER_MS, SloClass
from sarathi_plugin.telemetry.live import document as doc
from sarathi_plugin.telemetry.live.layout import CHUNKS, RUNNING, STATES, TOKENS, WAITING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.telemetry.live.reader import EngineColumns

SHOWN = 24
REACH_MS = 120_000
"""Tokens and chunks from before this are left out."""

State = Literal["waiting", "prefill", "decoding", "finished", "aborted", "error", "timeout"]


def latest_requests(
    engines: Sequence[EngineColumns], classes: Sequence[SloClass], slo_class: str | None, now_ns: int
) -> list[doc.RequestLive]:
    """The latest arrivals first, of one class or of all."""
    found = []
    for engine in engines:
        for row in engine.requests:
            slo = classes[int(row["slo_index"])]
            if slo_class in (None, slo.name):
                found.append((int(row["arrival_ns"]), engine, row, slo))
    found.sort(key=lambda item: item[0], reverse=True)
    return [request_live(engine, row, slo, now_ns) for _, engine, row, slo in found[:SHOWN]]


def request_live(engine: EngineColumns, row: Any, slo: SloClass, now_ns: int) -> doc.RequestLive:
    """One request."""
    state = _state(row)
    first, tokens, ended = int(row["first_ns"]), int(row["tokens"]), int(row["end_ns"])
    on_time, late = _emissions(row, now_ns)
    return doc.RequestLive(
        key=f"{engine.index}:{row['number']}",
        id=row["name"].decode(errors="replace"),
        engine=engine.index,
        slo_class=slo.name,
        state=state,
        arrived_ago_ms=_ago(row["arrival_ns"], now_ns),
        first_due_ago_ms=_ago(row["due_ns"], now_ns),
        ended_ago_ms=_ago(ended, now_ns) if ended else None,
        prompt_tokens=int(row["prompt_tokens"]),
        max_tokens=int(row["max_tokens"]),
        ttft_ms=(first - int(row["arrival_ns"])) / NS_PER_MS if first else None,
        tokens=tokens,
        met=tokens - int(row["late"]),
        missed=int(row["missed"]),
        overdue_ms=_overdue_ms(engine, row, now_ns),
        on_time_ago_ms=on_time,
        late_ago_ms=late,
        chunks=_chunks(engine, row, now_ns),
    )


def _state(row: Any) -> State:
    state = int(row["state"])
    if state in (WAITING, RUNNING) and row["tokens"]:
        return "decoding"
    if state == RUNNING:
        return "prefill"
    return STATES[state]  # type: ignore[return-value]


def _ago(moment_ns: Any, now_ns: int) -> int:
    return (now_ns - int(moment_ns)) // NS_PER_MS


def _overdue_ms(engine: EngineColumns, row: Any, now_ns: int) -> int:
    if row["state"] not in (WAITING, RUNNING):
        return 0
    return max(0, now_ns - int(engine.snapshot.deadline_ns[int(row["slot"])])) // NS_PER_MS


def _emissions(row: Any, now_ns: int) -> tuple[list[int], list[int]]:
    count = int(row["emissions"])
    kept = row["emission"][np.arange(max(0, count - TOKENS), count) % TOKENS]
    ago = (now_ns - kept // 2) // NS_PER_MS
    late = kept % 2 == 1
    near = ago <= REACH_MS
    return ago[near & ~late].tolist(), ago[near & late].tolist()


def _chunks(engine: EngineColumns, row: Any, now_ns: int) -> list[doc.Chunk]:
    count = int(row["chunk_count"])
    done_step, done_ns = int(engine.head["done_step"]), int(engine.head["done_ns"])
    found = []
    for chunk in row["chunk"][np.arange(max(0, count - CHUNKS), count) % CHUNKS].tolist():
        step, tokens, start, end = chunk
        if not end and step <= done_step:
            end = done_ns  # it has ended; exactly when is not known here yet
        if _ago(start, now_ns) <= REACH_MS:
            found.append(
                doc.Chunk(
                    start_ago_ms=_ago(start, now_ns),
                    end_ago_ms=_ago(end, now_ns) if end else None,
                    tokens=tokens,
                )
            )
    return found
