"""A small engine that writes for the live page, and an API server that reads it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.core import StepShape
from sarathi_plugin.telemetry.live import layout
from sarathi_plugin.telemetry.live.build import Query, ServerFacts
from sarathi_plugin.telemetry.live.document import LiveDocument
from sarathi_plugin.telemetry.live.source import LiveSource
from sarathi_plugin.telemetry.live.writer import LiveWriter
from sarathi_plugin.telemetry.snapshot import Snapshot, snapshot_path
from sarathi_plugin.telemetry.table import RequestTable
from tests.unit.telemetry.scene import FAST, NO_PREFILL, SLOW, Scene, at, make_record

if TYPE_CHECKING:
    from sarathi_plugin.core import SloClass
    from sarathi_plugin.records import RequestStatus

CLASSES = (FAST, SLOW)
BLOCKS = 1000
FACTS = ServerFacts("model", "sarathi", CLASSES, "1.0", "0.32.0")


class LiveScene(Scene):
    """One engine. Times in milliseconds of the scene; what is written is in real shared memory."""

    def __init__(self, session: str, engine: int = 0) -> None:
        super().__init__()
        self.snapshot = Snapshot.create(snapshot_path(session, engine))
        self.table = RequestTable(CLASSES, NO_PREFILL, self.snapshot)
        self.tracker._snapshot = self.snapshot
        path = layout.live_path(session, engine)
        self.columns = layout.create(path, len(CLASSES))
        self.live = LiveWriter(self.columns, path, [slo.name for slo in CLASSES], at(0), BLOCKS)
        self.steps = 0

    def arrive(
        self, name: str, slo: SloClass = FAST, ms: float = 0, scheduled_ms: float | None = None
    ) -> None:
        super().arrive(name, slo, ms, scheduled_ms)
        row = self.table.rows[name]
        self.live.arrived(row)
        self.live.binder(row)()

    def schedule(
        self,
        ms: float,
        decodes: int = 0,
        chunks: dict[str, int] | None = None,
        predicted_ms: float = 0,
        **more: Any,
    ) -> int:
        """A step begins; returns its number."""
        chunks = chunks or {}
        self.steps += 1
        self.live.scheduled(
            SimpleNamespace(
                step=self.steps, schedule_ns=at(ms), chunks=len(chunks), predicted_ns=at(predicted_ms) - at(0),
                shape=StepShape(decodes, decodes, 10 * decodes, sum(chunks.values())),
                **({"budget": 512, "running": decodes, "waiting": 0, "free_blocks": BLOCKS} | more),
            ),
            chunks.items(),
        )  # fmt: skip
        return self.steps

    def end(self, begun_ms: float, ms: float, tokens: str = "", prefill: int = 0, flush: bool = True) -> None:
        """The step that began at ``begun_ms`` ends; flush: and is observed at once."""
        self.live.done(self.steps, at(ms))
        names = tokens.split()
        if not flush:
            return
        shape = StepShape(len(names), len(names), 10, prefill)
        record = make_record(
            shape, step=self.steps, start_ns=at(begun_ms), end_ns=at(ms), predicted_ns=30_000_000, budget=512
        )
        if names:
            slots = np.array([self.table.rows[name].slot for name in names], np.int64)
            batch = self.table.emit(slots, np.ones(len(names), np.int64), at(ms))
            self.tracker.observe_step(record, batch)
            self.live.observe_step(record, batch)
        else:
            from sarathi_plugin.telemetry.emission import NO_TOKENS, TokenBatch

            self.live.observe_step(record, TokenBatch(at(ms), *NO_TOKENS))
        self.send(ms)

    def give(self, ms: float, tokens: str) -> None:
        """A decode step of 10 ms that ends now."""
        self.schedule(ms - 10, len(tokens.split()))
        self.end(ms - 10, ms, tokens)

    def leave(self, ms: float, name: str, status: RequestStatus = "finished") -> None:
        outcome = self.table.remove(name, status, at(ms))
        assert outcome is not None
        timeline = self.table.timeline(outcome)
        self.tracker.request_finished(timeline, outcome)
        self.live.request_finished(timeline, outcome)
        self.send(ms)

    def send(self, ms: float) -> None:
        """What the metrics would add now."""
        message = self.buffer.drain()
        if message:
            self.live.apply(message, at(ms))

    def close(self) -> None:
        self.live.engine_stopping()
        self.snapshot.close()


class Server:
    """An API server's view of engines. dead: pids that do not run any more."""

    def __init__(self, session: str, engines: tuple[int, ...] = (0,), facts: ServerFacts = FACTS) -> None:
        self.now_ns = at(0)
        self.dead: set[int] = set()
        self.source = LiveSource(
            facts,
            session,
            engines,
            monotonic_ns=lambda: self.now_ns,
            wall=lambda: 1_700_000_000.0,
            alive=lambda pid: pid not in self.dead,
        )

    def look(self, ms: float, **query: Any) -> LiveDocument:
        """The document at a moment of the scene, as a viewer gets it."""
        self.now_ns = at(ms)
        return LiveDocument.model_validate_json(self.source.json(Query(**query)))
