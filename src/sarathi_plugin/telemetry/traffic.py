"""Which steps of a recording ran under traffic, and which to cover a grid of batch shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.telemetry.journal import Arrived
from sarathi_plugin.workload.synthetic import GRID_ID

if TYPE_CHECKING:
    from sarathi_plugin.telemetry.recording import Recording


def under_traffic(recording: Recording) -> list[bool]:
    """For each step, whether it was scheduled after the first request that is not of a grid had come.

    A grid comes first, if any. No step of a recording without arrivals was.
    """
    first_ns = min(
        (
            event.now_ns
            for event in recording.events
            if isinstance(event, Arrived) and f"-{GRID_ID}" not in f"-{event.request_id}"
        ),
        default=None,
    )
    return [first_ns is not None and step.schedule_ns >= first_ns for step in recording.steps]
