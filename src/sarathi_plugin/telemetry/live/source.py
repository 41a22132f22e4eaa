"""Documents for an API server's viewers: reads the engines, and answers who asks again at once from memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.telemetry.live.build import Query, ServerFacts, build
from sarathi_plugin.telemetry.live.reader import EngineReader, process_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FRESH_NS = 200 * NS_PER_MS
"""Viewers who ask within this time of each other get the same document."""

WINDOWS_S = (10, 60, 300)


class LiveSource:
    """One per API server. session: names its engines' files, "" when there are none."""

    def __init__(
        self,
        facts: ServerFacts,
        session: str,
        engines: Sequence[int],
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], float] = time.time,
        alive: Callable[[int], bool] = process_alive,
    ) -> None:
        self.facts = facts
        self.engines = tuple(engines)
        self._readers = [EngineReader(session, i, len(facts.classes), alive) for i in engines if session]
        self._monotonic_ns, self._wall = monotonic_ns, wall
        self._made: dict[Query, tuple[int, bytes]] = {}

    def problem_with(self, query: Query) -> str | None:
        """One sentence when a query names what is not there."""
        names = [slo.name for slo in self.facts.classes]
        if query.slo_class is not None and query.slo_class not in names:
            return f"Unknown slo_class {query.slo_class!r}; known: {', '.join(names) or 'none'}."
        if query.engine is not None and query.engine not in self.engines:
            return f"Unknown engine {query.engine}; known: {', '.join(map(str, self.engines)) or 'none'}."
        if query.window_s not in WINDOWS_S:
            return f"Unknown window_s {query.window_s}; known: {', '.join(map(str, WINDOWS_S))}."
        return None

    def json(self, query: Query) -> bytes:
        """The document, encoded."""
        now = self._monotonic_ns()
        made = self._made.get(query)
        if made is None or now - made[0] > FRESH_NS:
            engines = [reader.read() for reader in self._readers]
            text = build(self.facts, engines, query, now, self._wall()).model_dump_json()
            made = self._made[query] = now, text.encode()
        return made[1]

    def close(self) -> None:
        """Remove what killed engines leave behind."""
        for reader in self._readers:
            reader.remove()
