"""One request's life as pieces that do not overlap: queued, chunks, gaps between tokens, time past a deadline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sarathi_plugin.deadlines import DeadlineState
from sarathi_plugin.telemetry.journal import Scheduled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sarathi_plugin.records import RequestTimeline
    from sarathi_plugin.telemetry.recording import Recording

Chunk = tuple[int, int, int]
"""Start and end of the step that carried it, and its tokens."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a request's life; tokens are moments. facts: what a viewer shows beside the name."""

    name: str
    kind: str
    start_ns: int
    end_ns: int
    facts: dict[str, Any] = field(default_factory=dict)


def chunks_of(recording: Recording) -> dict[str, list[Chunk]]:
    """The chunks of every request that ended, from the journal.

    Before a request's first token whatever it was scheduled for is a chunk of its prompt; later only what it computes
    again after a preemption.
    """
    steps = {step.schedule_ns: step for step in recording.steps}
    tokens = {timeline.request_id: timeline.token_ns for timeline in recording.timelines}
    found: dict[str, list[Chunk]] = {}
    preempted: dict[str, int] = {}
    for event in recording.events:
        if not isinstance(event, Scheduled):
            continue
        preempted |= dict.fromkeys(event.preempted, event.now_ns)
        step = steps.get(event.now_ns)
        if step is None:
            continue
        for name, count in zip(event.names, event.tokens, strict=True):
            times = tokens.get(name)
            if times is None:
                continue
            since = preempted.get(name)
            again = since is not None and not any(since < moment < step.end_ns for moment in times)
            if again or not times or step.end_ns <= times[0]:
                found.setdefault(name, []).append((step.start_ns, step.end_ns, count))
    return found


def request_slices(timeline: RequestTimeline, chunks: Iterable[Chunk]) -> list[Piece]:
    """Pieces in order of their start. Stretches never overlap; moments lie on their borders."""
    chunk_pieces = [
        Piece(f"chunk of {tokens}", "chunk", start, end, {"tokens": tokens})
        for start, end, tokens in sorted(chunks)
        if end > start
    ]
    pieces = [*chunk_pieces, *cut(_waits(timeline), chunk_pieces), *_moments(timeline)]
    return sorted(pieces, key=lambda piece: (piece.start_ns, piece.end_ns))


def _waits(timeline: RequestTimeline) -> Iterator[Piece]:
    """Everything between the events of a request, chunks not yet taken out."""
    first = timeline.token_ns[0] if timeline.token_ns else timeline.end_ns
    scheduled = min(first, timeline.scheduled_ns if timeline.scheduled_ns is not None else first)
    yield Piece("queued", "queued", timeline.arrival_ns, scheduled)
    yield Piece("prompt waits", "wait", scheduled, first)
    state = _state(timeline)
    previous, index = first, 0
    for index, moment in enumerate(timeline.token_ns):
        due = state.next_deadline_ns
        state.emit(moment)
        if index:
            yield from _gap(previous, moment, due, index)
        previous = moment
    if timeline.token_ns and timeline.end_ns > previous:
        yield from _gap(previous, timeline.end_ns, state.next_deadline_ns, index + 1)


def _gap(start: int, end: int, due: int, index: int) -> Iterator[Piece]:
    """The time before token ``index``: up to its deadline, and past it."""
    border = min(max(due, start), end)
    yield Piece(f"decode {index}", "decode", start, border)
    yield Piece("past deadline", "late", border, end, {"token": index})


def _moments(timeline: RequestTimeline) -> Iterator[Piece]:
    state = _state(timeline)
    for index, moment in enumerate(timeline.token_ns):
        due = state.next_deadline_ns
        missed = state.emit(moment)
        if missed:
            facts = {"index": index, "missed": missed, "late_ms": (moment - due) / 1e6}
            yield Piece(f"token {index}: {missed} missed", "late token", moment, moment, facts)
        else:
            yield Piece(f"token {index}", "token", moment, moment, {"index": index})


def _state(timeline: RequestTimeline) -> DeadlineState:
    first_ns = timeline.prefill_ns + timeline.ttft_slack_ns
    return DeadlineState.from_arrival(timeline.arrival_ns, first_ns, timeline.tbt_ns)


def cut(pieces: Iterable[Piece], holes: list[Piece]) -> Iterator[Piece]:
    """The pieces without the stretches that ``holes`` (in order, not overlapping) take; empty rests are left out."""
    for piece in pieces:
        start = piece.start_ns
        for hole in holes:
            if hole.end_ns <= start or hole.start_ns >= piece.end_ns:
                continue
            if hole.start_ns > start:
                yield Piece(piece.name, piece.kind, start, hole.start_ns, piece.facts)
            start = hole.end_ns
        if start < piece.end_ns:
            yield Piece(piece.name, piece.kind, start, piece.end_ns, piece.facts)
