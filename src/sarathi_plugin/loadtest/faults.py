"""Failures by kind: what to count a failed request under."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sarathi_plugin.records import RequestTimeline

KINDS = {
    "connect": "no connection: refused, or no such host",
    "connect-timeout": "no connection in time",
    "reset": "the connection broke",
    "read-timeout": "silence: no bytes for too long (a half-open stream, too)",
    "timeout": "not done in the time of a whole request",
    "malformed": "not server-sent events, not UTF-8, not JSON, or no completion",
    "truncated": "the stream ended without a finish reason or [DONE]",
    "empty": "a proper end, but no token",
    "server": "the server reported an error inside the stream",
    "request": "the request could not be sent as it is",
    "aborted": "the server aborted the request",
    "stopped": "under way when the run was stopped",
    "lost": "its worker never reported it",
}
"""Every kind with its meaning; answers other than 200 are counted as ``http CODE``."""


def fault_kind(timeline: RequestTimeline) -> str:
    """The kind of a failed request, empty for one that finished."""
    if timeline.status == "finished":
        return ""
    head = timeline.error.partition(":")[0]
    if head in KINDS or head.startswith("http "):
        return head
    return "aborted" if timeline.status == "aborted" else "other"


def count_faults(timelines: Iterable[RequestTimeline]) -> dict[str, int]:
    """Failed requests by kind, most frequent first; kinds that did not occur are left out."""
    kinds = Counter(kind for timeline in timelines if (kind := fault_kind(timeline)))
    return dict(kinds.most_common())
