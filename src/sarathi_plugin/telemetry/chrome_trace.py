"""A recording as a trace for Perfetto (ui.perfetto.dev) and chrome://tracing, and back.

The format is Chrome's JSON trace: slices with a start and a length in microseconds, on tracks named by process and
thread. Process 1 is the engine: a track of steps, and counters. Process 2 has a track per request: queued, each chunk
of its prompt, the gaps between its tokens, time past a deadline, and an instant per token. Steps and requests carry
their whole record in nanoseconds, so both can be had back unchanged. What only a replay needs (prompt hashes) is not
in it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import StepShape
from sarathi_plugin.records import RequestTimeline, StepRecord
from sarathi_plugin.telemetry.recording import Recording
from sarathi_plugin.telemetry.request_track import chunks_of, request_slices

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINE, REQUESTS = 1, 2
STEPS_TRACK = 1
COUNTERS = ("running", "waiting", "free_blocks", "budget")


def to_trace(recording: Recording) -> dict[str, Any]:
    """The trace. Requests that had not ended when the recording stopped have no track."""
    zero = _zero(recording)
    events = [*_names(recording)]
    for step in recording.steps:
        events += _step(step, zero)
    chunks = chunks_of(recording)
    for track, timeline in enumerate(recording.timelines, 1):
        events += _request(timeline, chunks.get(timeline.request_id, []), track, zero)
    return {
        "displayTimeUnit": "ms",
        "otherData": {"zero_ns": zero, "head": recording.head, "step_time": recording.step_time},
        "traceEvents": events,
    }


def from_trace(trace: dict[str, Any]) -> Recording:
    """Head, steps and timelines of the recording that a trace was made of. Raises ConfigError."""
    found = Recording()
    try:
        found.head, found.step_time = trace["otherData"]["head"], trace["otherData"]["step_time"]
        for event in trace["traceEvents"]:
            args = event.get("args", {})
            if event["ph"] == "X" and event["pid"] == ENGINE:
                found.steps.append(StepRecord(**(args | {"shape": StepShape(**args["shape"])})))
            elif event.get("name") == "request" and event["ph"] == "i":
                found.timelines.append(RequestTimeline(**(args | {"token_ns": tuple(args["token_ns"])})))
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"This trace was not made from a recording: {error} is missing or wrong."
        ) from error
    return found


def _zero(recording: Recording) -> int:
    """The first moment of the recording: time starts there."""
    starts = [min(step.schedule_ns, step.start_ns) for step in recording.steps]
    starts += [timeline.arrival_ns for timeline in recording.timelines]
    return min(starts, default=0)


def micros(ns: int) -> float:
    """Nanoseconds as the microseconds of the format; exact for any run shorter than a month."""
    return ns / 1000


def _names(recording: Recording) -> Iterator[dict[str, Any]]:
    def name(what: str, pid: int, tid: int, text: str) -> dict[str, Any]:
        return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": text}}

    yield name("process_name", ENGINE, 0, f"engine: {recording.head.get('policy', 'unknown policy')}")
    yield name("thread_name", ENGINE, STEPS_TRACK, "steps")
    yield name("process_name", REQUESTS, 0, "requests")
    for track, timeline in enumerate(recording.timelines, 1):
        yield name("thread_name", REQUESTS, track, f"{timeline.request_id} ({timeline.slo_class})")


def _step(step: StepRecord, zero: int) -> list[dict[str, Any]]:
    shape = step.shape
    parts = [f"{shape.decode_tokens} decode"] if shape.decode_tokens else []
    parts += [f"{shape.prefill_tokens} prompt"] if shape.prefill_tokens else []
    args = dataclasses.asdict(step) | {"shape": shape._asdict()}
    where = {"pid": ENGINE, "tid": STEPS_TRACK, "ts": micros(step.start_ns - zero)}
    slice_ = {"ph": "X", "name": " + ".join(parts) or "empty", "cat": shape.kind, **where}
    counters = [{"ph": "C", "name": name, **where, "args": {name: getattr(step, name)}} for name in COUNTERS]
    return [slice_ | {"dur": micros(step.end_ns - step.start_ns), "args": args}, *counters]


def _request(
    timeline: RequestTimeline, chunks: list[tuple[int, int, int]], track: int, zero: int
) -> list[dict[str, Any]]:
    where = {"pid": REQUESTS, "tid": track}
    start = micros(timeline.arrival_ns - zero)
    args = dataclasses.asdict(timeline) | {"token_ns": list(timeline.token_ns)}
    events: list[dict[str, Any]] = [
        {"ph": "i", "s": "t", "name": "request", "cat": "request", **where, "ts": start, "args": args}
    ]
    for piece in request_slices(timeline, chunks):
        what = {"name": piece.name, "cat": piece.kind, **where, "ts": micros(piece.start_ns - zero)}
        if piece.kind in ("token", "late token"):
            events.append({"ph": "i", "s": "t", **what, "args": piece.facts})
        else:
            events.append(
                {"ph": "X", "dur": micros(piece.end_ns - piece.start_ns), **what, "args": piece.facts}
            )
    return events
