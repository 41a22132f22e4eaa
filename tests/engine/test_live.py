"""The real scheduler writes for the live page: it says what the metrics say, and changes no decision."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest

from sarathi_plugin.config import BUILTIN_CLASSES
from sarathi_plugin.telemetry.live import layout
from sarathi_plugin.telemetry.live.build import Query, ServerFacts
from sarathi_plugin.telemetry.live.document import LiveDocument
from sarathi_plugin.telemetry.live.source import LiveSource
from tests.engine.emulator import Engine, VirtualClock, counted, make_scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLASSES = tuple(spec.build(name) for name, spec in BUILTIN_CLASSES.items())
MS = 1_000_000


def step_ns(output: Any) -> int:
    return 10 * MS + output.total_num_scheduled_tokens * MS // 10


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("VLLM_PLUGINS", "sarathi,sarathi-page")
    name = f"test{secrets.token_hex(6)}"
    yield name
    for path in layout.live_path(name, 0).parent.glob(f"*{name}*"):
        path.unlink()


def make_engine(config: Any, session: str, depth: int, name: str = "sarathi", **more: Any) -> Engine:
    clock = VirtualClock()
    return Engine(
        make_scheduler(config, name, clock=clock, session=session, **more), clock, step_ns, depth=depth
    )


def viewer(engine: Engine, session: str) -> Callable[[], LiveDocument]:
    source = LiveSource(
        ServerFacts("m", "sarathi", CLASSES, "1", "2"),
        session,
        [0],
        monotonic_ns=lambda: engine.clock.ns,
        wall=lambda: 0.0,
    )

    def look() -> LiveDocument:
        source._made.clear()
        return LiveDocument.model_validate_json(source.json(Query()))

    return look


def load(engine: Engine) -> None:
    for i in range(60):
        slo = ["interactive", "standard", "batch"][i % 3]
        engine.submit(10**9 + i * 40 * MS, 30 + 97 * i % 900, 4 + i % 40, f"r{i}", slo_class=slo)


@pytest.mark.parametrize(("asynchronous", "depth"), [(False, 1), (True, 2)])
def test_the_page_says_what_the_metrics_say(
    config_for: Callable[..., Any], session: str, asynchronous: bool, depth: int
):
    engine = make_engine(config_for(asynchronous=asynchronous), session, depth)
    look = viewer(engine, session)
    load(engine)
    engine.run()
    engine.scheduler.sarathi.flush()
    document = look()
    totals = counted(engine.messages)
    assert not engine.scheduler.sarathi._live.broken
    assert document.state == "live"
    for c in document.classes:
        assert c.met == totals.get(("deadlines_met", (c.name,)), 0) > 0
        assert c.missed == totals.get(("deadlines_missed", (c.name,)), 0)
        assert c.finished == totals["requests_finished", (c.name, "finished")] == 20
        assert c.requests == 0
    latest = document.requests[0]
    assert latest.id == "r59"
    assert latest.state == "finished"
    assert latest.tokens == len(engine.trace.tokens["r59"])
    now = engine.clock.ns
    marks = sorted([*latest.on_time_ago_ms, *latest.late_ago_ms], reverse=True)
    assert marks == [(now - t) // MS for t in engine.trace.tokens["r59"]]
    assert sum(chunk.tokens for chunk in latest.chunks) == 30 + 97 * 59 % 900
    assert all(chunk.end_ago_ms is not None for chunk in latest.chunks)
    assert document.steps is not None
    steps = engine.trace.steps[-len(document.steps.ago_ms) :]
    assert document.steps.ago_ms == [(now - step.end_ns) // MS for step in steps]
    assert [d + p for d, p in zip(document.steps.decode_tokens, document.steps.prefill_tokens, strict=True)] == [
        step.total for step in steps
    ]  # fmt: skip


def test_a_long_step_shows_while_it_runs(config_for: Callable[..., Any], session: str):
    engine = make_engine(config_for(budget=8192), session, 1, "prefill-first")
    look = viewer(engine, session)
    engine.submit(10**9, 20, 500, "stream", slo_class="interactive")
    for _ in range(20):
        engine.step()
    engine.submit(engine.clock.ns, 8000, 5, "long", slo_class="batch")
    engine.admit()
    engine._schedule()
    began = engine.clock.ns
    engine.clock.ns += 3000 * MS  # the step takes longer than that
    document = look()
    running = document.engines[0].step
    assert running is not None
    assert running.prefill_tokens == 8000
    assert running.running_ms == pytest.approx((engine.clock.ns - began) / MS)
    (interactive, *_) = document.classes
    assert interactive.overdue.streams == 1
    assert interactive.overdue.uncounted_misses > 1
    states = {r.id: (r.state, r.overdue_ms > 0) for r in document.requests}
    assert states == {"stream": ("decoding", True), "long": ("prefill", False)}
    engine._update()
    engine.step()
    assert look().engines[0].step is None


def test_without_statistics_the_page_still_counts(config_for: Callable[..., Any], session: str):
    engine = make_engine(config_for(), session, 1, log_stats=False)
    look = viewer(engine, session)
    load(engine)
    engine.run()
    assert sum(c.finished for c in look().classes) == 60


def test_decisions_are_the_same_without_the_page(
    config_for: Callable[..., Any], session: str, monkeypatch: pytest.MonkeyPatch
):
    decisions = []
    for plugins in ("sarathi,sarathi-page", "sarathi"):
        monkeypatch.setenv("VLLM_PLUGINS", plugins)
        engine = make_engine(config_for(), session, 1)
        load(engine)
        decisions.append(engine.run().decisions)
        assert (engine.scheduler.sarathi._live is not None) is (plugins != "sarathi")
        engine.scheduler._stop()
    assert decisions[0] == decisions[1]
    assert not layout.live_path(session, 0).exists()


def test_aborted_and_preempted_requests_are_followed_to_their_end(
    config_for: Callable[..., Any], session: str
):
    engine = make_engine(config_for(max_model_len=900), session, 1, blocks=60)
    look = viewer(engine, session)
    for i in range(6):
        engine.submit(10**9 + i * 10 * MS, 200, 90, f"r{i}")
    for _ in range(40):
        engine.step()
    engine.abort("r2")
    engine.run()
    engine.scheduler.sarathi.flush()
    assert not engine.scheduler.sarathi._live.broken
    document = look()
    assert {r.id: r.state for r in document.requests} == {
        f"r{i}": "aborted" if i == 2 else "finished" for i in range(6)
    }
    assert document.errors.preemptions == engine.trace.preemptions > 0
