"""Drives a server through batches of many shapes, so that its recording can tell what a step costs.

A cell holds a number of streams at a length of context; while they decode, prompts of every size are sent one after
another, each computed beside them in one step or a few. What ran is in the server's recording, not here.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S, SloClass
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.server import ServerError
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.workload.model import ScheduledRequest
from sarathi_plugin.workload.synthetic import GRID_ID, random_prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from sarathi_plugin.records import RequestTimeline

TOKENS_PER_PROBE = 4
"""Output tokens that a stream is given for each prompt sent beside it: the prompt's own step, and plain ones."""

UNJUDGED = Targets(SloClass("none", NS_PER_S, 0), PrefillCurve(0, 0, 0))
"""Nobody judges what is sent to be recorded."""


@dataclass(frozen=True, slots=True)
class GridCell:
    """So many streams at a context of so many tokens, and the sizes of the prompts sent beside them."""

    streams: int
    context: int
    prompts: tuple[int, ...]


def design_grid(
    *, max_streams: int, max_context: int, budget: int, tile: int = 64, prompts_per_cell: int = 10
) -> list[GridCell]:
    """Cells that cover stream counts x contexts x prompt sizes, the latter also just around multiples of ``tile``.

    The total of a step (streams + prompt) is what falls on tile edges. budget: the server's ``max_num_batched_tokens``.
    Raises ConfigError when there is nothing to vary.
    """
    if min(max_streams, max_context // 64, budget // 64) < 1:
        raise ConfigError("A grid needs at least one stream, and 64 tokens of context and of budget.")
    if not 1 <= tile <= min(512, budget):
        raise ConfigError(f"A grid needs a tile from 1 to {min(512, budget)} tokens, not {tile}.")
    counts = sorted({n for n in (0, 1, 2, 4, 8, 16, 32, 64, 128) if n < max_streams} | {max_streams})
    contexts = sorted({c for c in (64, 512, 2048, 8192) if c < max_context} | {max_context})
    edges = [edge + off for edge in _edges(budget, tile) for off in (0, 1, -tile // 2)]
    cells, at = [], 0
    for streams in counts:
        for context in contexts if streams else contexts[:1]:
            sizes = []
            for _ in range(prompts_per_cell):
                total = edges[at % len(edges)]
                sizes.append(max(1, min(budget, total) - streams))
                at += 5  # a step through the edges that visits all: their number is no multiple of 5
            cells.append(GridCell(streams, context, tuple(sizes)))
    return cells


def _edges(budget: int, tile: int) -> list[int]:
    """Multiples of the tile, every one up to 512 and sparser beyond."""
    found = list(range(tile, min(512, budget) + 1, tile))
    while (following := max(found[-1] // tile + 1, found[-1] * 5 // 4 // tile) * tile) <= budget:
        found.append(following)
    edges = sorted({*found, budget})
    return edges if (3 * len(edges)) % 5 else edges[1:]


def drive_grid(
    url: str,
    model: str,
    cells: Sequence[GridCell],
    rng: np.random.Generator,
    *,
    note: Callable[[str], object] = lambda _: None,
) -> list[list[RequestTimeline]]:
    """Send a grid's requests to a server; returns, for each cell, what came of its streams, then of its prompts.

    Raises ServerError when one fails.
    """
    client = StreamingClient(Endpoint(url, model), UNJUDGED)
    found = []
    for number, cell in enumerate(cells, 1):
        found.append(_drive_cell(client, cell, rng, number))
        note(f"{number} of {len(cells)}: {cell.streams} streams at {cell.context} tokens")
    return found


def _drive_cell(
    client: StreamingClient, cell: GridCell, rng: np.random.Generator, number: int
) -> list[RequestTimeline]:
    tokens = TOKENS_PER_PROBE * len(cell.prompts) + 8
    streams = [
        _request(f"{GRID_ID}{number}-stream-{i}", random_prompt(cell.context, rng), tokens)
        for i in range(cell.streams)
    ]
    probes = [
        _request(f"{GRID_ID}{number}-prompt-{i}", random_prompt(size, rng), 1)
        for i, size in enumerate(cell.prompts)
    ]
    timelines: dict[str, RequestTimeline] = {}

    def send(request: ScheduledRequest) -> None:
        timelines[request.request_id] = client.send(request).timeline

    threads = [threading.Thread(target=send, args=(stream,), daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    for probe in probes:
        send(probe)
    for thread in threads:
        thread.join()
    if failures := [t.error for t in timelines.values() if t.status != "finished"]:
        raise ServerError(f"{len(failures)} requests of the grid failed, first: {failures[0]}")
    return [timelines[request.request_id] for request in (*streams, *probes)]


def _request(name: str, prompt: tuple[int, ...], tokens: int) -> ScheduledRequest:
    return ScheduledRequest(
        request_id=name,
        offset_ns=0,
        prompt=prompt,
        prompt_tokens=len(prompt),
        max_tokens=tokens,
        ignore_eos=True,
    )
