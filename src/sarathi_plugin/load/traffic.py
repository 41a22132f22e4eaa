"""Traffic as it comes, for the end of a recorded grid.

A grid's prompts come one at a time, each when the one before is through. Under traffic several end in one step, each
at a length of its own, and the batch grows and shrinks: steps that a fit should have seen before it tells them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.dispatch import run_open_loop
from sarathi_plugin.load.grid import UNJUDGED
from sarathi_plugin.load.server import ServerError
from sarathi_plugin.workload.arrivals import Ramp
from sarathi_plugin.workload.kinds import KINDS, make_trace
from sarathi_plugin.workload.synthetic import workload_of
from sarathi_plugin.workload.trace import Trace, with_arrivals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sarathi_plugin.load.dispatch import Progress
    from sarathi_plugin.load.grid import GridCell
    from sarathi_plugin.records import RequestTimeline

KIND = "sharegpt-like"
LARGEST_SCALE = 0.25
"""Lengths are at most this multiple of the kind's: shorter requests, more arrivals in the same time."""

BUSY = 0.7
"""Mean rate as a share of what the server can take."""

RAMP = Ramp(start=0.5, end=1.5)
"""From a light load to a little more than the server can take: batches of every size."""

SAMPLE = 1000
"""Requests drawn to know their mean lengths."""

NOTES = 4
"""Lines of progress."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What a server took for a grid, seconds.

    prompt_token_s: per token of a prompt that runs alone. gap_s: between tokens of each of ``streams`` streams.
    """

    prompt_token_s: float
    gap_s: float
    streams: int

    def most_per_s(self, prompt_tokens: float, output_tokens: float) -> float:
        """Requests a second of these mean lengths with all streams in use.

        So many answers take the steps of one and the prompts of all.
        """
        answers_s = output_tokens * self.gap_s
        return self.streams / (answers_s + self.streams * prompt_tokens * self.prompt_token_s)


def pace_of(
    cells: Sequence[GridCell], timelines: Sequence[Sequence[RequestTimeline]], context: float
) -> Pace:
    """The pace of a driven grid, at the full number of streams and about this context (tokens).

    timelines: for each cell, of its streams and then of its prompts. Raises ServerError for a grid without a cell of
    no stream, or whose streams gave no two tokens.
    """
    alone = [t for cell, of_cell in zip(cells, timelines, strict=True) if not cell.streams for t in of_cell]
    most = max(cell.streams for cell in cells)
    full = [(cell, of_cell) for cell, of_cell in zip(cells, timelines, strict=True) if cell.streams == most]
    cell, of_cell = min(full, key=lambda found: abs(found[0].context - context))
    gaps = [gap for t in of_cell[: cell.streams] for gap in t.gaps_ns]
    waited = sum(t.ttft_ns or 0 for t in alone)
    tokens = sum(t.prompt_tokens for t in alone)
    if not gaps or not waited or not tokens:
        raise ServerError("The grid's requests got too few tokens to tell how fast the server is.")
    return Pace(waited / tokens / NS_PER_S, float(np.median(gaps)) / NS_PER_S, most)


def design_traffic(
    cells: Sequence[GridCell],
    timelines: Sequence[Sequence[RequestTimeline]],
    *,
    seconds: float,
    max_context: int,
    seed: int,
) -> Trace:
    """About so many seconds of traffic at ``BUSY`` of what the driven grid says the server can take.

    One request or more, of up to about ``max_context`` tokens. Raises ServerError as ``pace_of``.
    """
    scale = min(LARGEST_SCALE, max_context / KINDS[KIND].max_total_tokens)

    def requests(count: int) -> Trace:
        return make_trace(KIND, rate=1.0, count=count, seed=seed).resized(scale, scale)

    sample = requests(SAMPLE).requests
    prompt = sum(request.prompt_tokens for request in sample) / SAMPLE
    output = sum(request.output_tokens for request in sample) / SAMPLE
    rate = BUSY * pace_of(cells, timelines, prompt + output / 2).most_per_s(prompt, output)
    return with_arrivals(requests(max(1, round(rate * seconds))), rate, seed, RAMP)


def drive_traffic(
    url: str,
    model: str,
    trace: Trace,
    seed: int,
    *,
    note: Callable[[str], object] = lambda _: None,
) -> tuple[RequestTimeline, ...]:
    """Send a trace to a server, each request at its time. Raises ServerError when one fails."""
    count = len(trace.requests)
    marks = sorted({-(-count * part // NOTES) for part in range(1, NOTES + 1)})

    def tell(progress: Progress) -> None:
        while marks and marks[0] <= progress.finished:
            note(f"{marks.pop(0)} of {count} requests answered")

    note(f"traffic: {count} requests, {trace.rate:.2g} a second")
    client = StreamingClient(Endpoint(url, model), UNJUDGED)
    timelines = run_open_loop(workload_of(trace, seed), client.send, progress=tell).timelines
    failures = [t.error for t in timelines if t.status != "finished"]
    if failures:
        raise ServerError(f"{len(failures)} requests of the traffic failed, first: {failures[0]}")
    return timelines
