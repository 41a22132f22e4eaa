"""What became of every request: the simulator's own books, whatever the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sarathi_plugin.load.targets import judge
from sarathi_plugin.records import RequestStatus, RequestTimeline

if TYPE_CHECKING:
    from sarathi_plugin.load.targets import Targets
    from sarathi_plugin.workload.trace import TraceRequest


@dataclass(slots=True)
class Entry:
    """One request so far. number: its place in the trace. first_ns: when its first token is due."""

    asked: TraceRequest
    number: int
    arrival_ns: int
    first_ns: int
    tbt_ns: int
    scheduled_ns: int | None = None
    token_ns: list[int] = field(default_factory=list)
    end_ns: int | None = None
    status: RequestStatus = "finished"


class Book:
    """Entries by request id."""

    def __init__(self, targets: Targets, epoch_ns: int) -> None:
        self.targets = targets
        self.entries: dict[str, Entry] = {}
        self._epoch_ns = epoch_ns

    def open(self, asked: TraceRequest, number: int) -> Entry:
        """A request arrives."""
        slo = self.targets.of(asked.slo_class)
        first_ns = self.targets.curve.prefill_ns(asked.prompt_tokens) + slo.ttft_slack_ns
        entry = Entry(asked, number, self._epoch_ns + asked.offset_ns, first_ns, slo.tbt_ns)
        self.entries[asked.request_id] = entry
        return entry

    def unfinished(self) -> list[Entry]:
        """Requests that have arrived and not ended."""
        return [entry for entry in self.entries.values() if entry.end_ns is None]

    def timelines(self, end_ns: int) -> list[RequestTimeline]:
        """All requests in the order of the trace; those still open at ``end_ns`` count as timed out."""
        ordered = sorted(self.entries.values(), key=lambda entry: entry.number)
        return [self.timeline(entry, end_ns) for entry in ordered]

    def timeline(self, entry: Entry, end_ns: int) -> RequestTimeline:
        """One request, its deadlines counted."""
        asked, slo = entry.asked, self.targets.of(entry.asked.slo_class)
        status: RequestStatus = entry.status if entry.end_ns is not None else "timeout"
        end = end_ns if entry.end_ns is None else entry.end_ns
        count = judge(entry.arrival_ns, entry.token_ns, end, status, entry.first_ns, slo.tbt_ns)
        return RequestTimeline(
            request_id=asked.request_id,
            source="simulator",
            slo_class=asked.slo_class or slo.name,
            arrival_ns=entry.arrival_ns,
            sent_ns=entry.arrival_ns,
            scheduled_ns=entry.scheduled_ns,
            token_ns=tuple(entry.token_ns),
            end_ns=end,
            status=status,
            prompt_tokens=asked.prompt_tokens,
            tbt_ns=slo.tbt_ns,
            ttft_slack_ns=slo.ttft_slack_ns,
            prefill_ns=entry.first_ns - slo.ttft_slack_ns,
            curve=self.targets.curve.digest,
            met=count.met,
            missed=count.missed,
        )
