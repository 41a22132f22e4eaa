"""What an engine writes and what a viewer reads of it: every figure worked out by hand."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sarathi_plugin.telemetry.catalogue import BY_NAME, LATENCY_BUCKETS
from sarathi_plugin.telemetry.live import layout, reader
from sarathi_plugin.telemetry.live.build import ServerFacts
from sarathi_plugin.telemetry.live.document import ClassLive, LiveDocument, RequestLive
from sarathi_plugin.telemetry.live.sums import quantile_ms
from sarathi_plugin.telemetry.live.writer import LiveWriter
from tests.unit.telemetry.live.live_scene import BLOCKS, LiveScene, Server
from tests.unit.telemetry.scene import FAST, SLOW, at

if TYPE_CHECKING:
    from collections.abc import Iterator

# FAST: first token due 300 ms after arrival, then one per 50 ms. SLOW: 2 s, one per second.


@pytest.fixture
def session() -> Iterator[str]:
    name = f"test{secrets.token_hex(6)}"
    yield name
    for path in layout.live_path(name, 0).parent.glob(f"*{name}*"):
        path.unlink()


@pytest.fixture
def scene(session: str) -> LiveScene:
    return LiveScene(session)


@pytest.fixture
def server(session: str) -> Server:
    return Server(session)


def of(document: LiveDocument, name: str) -> ClassLive:
    return next(c for c in document.classes if c.name == name)


def request(document: LiveDocument, name: str) -> RequestLive:
    return next(r for r in document.requests if r.id == name)


# -- empty -------------------------------------------------------------------------------------------------------


def test_before_anything_happens_nothing_is_claimed(scene: LiveScene, server: Server):
    document = server.look(1000)
    assert document.state == "live"
    assert document.message == ""
    for c in document.classes:
        assert set(c.fluidity.model_dump().values()) == {None}
        assert (c.tbt.p50_ms, c.ttft.p99_ms, c.requests, c.overdue.streams) == (None, None, 0, 0)
    assert document.requests == []
    assert document.steps is not None
    assert document.steps.ago_ms == []
    assert set(document.history.running) == {None}
    assert set(document.history.fluidity["fast"]) == {None}
    (engine,) = document.engines
    assert (engine.step, engine.last_step_ago_ms, engine.running, engine.kv_used) == (None, None, 0, 0.0)


def test_an_engine_that_has_not_reported_is_starting(server: Server):
    document = server.look(0)
    assert document.state == "starting"
    assert "No engine has reported yet" in document.message
    assert document.engines[0].state == "starting"
    assert document.steps is None
    assert of(document, "fast").fluidity.since_start is None


def test_without_our_scheduler_it_says_so(session: str):
    document = Server(session, (), ServerFacts("m", "", (), "1", "0.32", stock=True)).look(0)
    assert document.state == "stock"
    assert "--scheduler" in document.message
    assert (document.classes, document.engines, document.requests) == ([], [], [])


def test_a_dead_engine_is_gone_and_shows_nothing(scene: LiveScene, server: Server):
    scene.arrive("a")
    scene.give(100, "a")
    assert server.look(200).classes[0].met == 1
    server.dead = {os.getpid()}
    for ms in (1000, 2000):
        document = server.look(ms)
        assert document.state == "gone"
        assert document.engines[0].state == "gone"
        assert document.requests == []
        assert document.classes[0].met == 0
        assert document.steps is None


# -- fluidity and lateness ---------------------------------------------------------------------------------------


def test_fluidity_is_that_of_the_counters_over_each_window(scene: LiveScene, server: Server):
    scene.arrive("a")
    scene.give(100, "a")  # met, the next is due at 350
    scene.give(700, "a")  # 350 late: 8 misses
    scene.arrive("b", ms=100_000)
    for i in range(5):
        scene.give(100_100 + 50 * i, "b")
    fluidity = of(server.look(101_000), "fast").fluidity
    assert fluidity.last_10_s == 1.0
    assert fluidity.last_60_s == 1.0
    assert fluidity.last_300_s == pytest.approx(6 / 14)
    assert fluidity.since_start == pytest.approx(6 / 14)
    assert of(server.look(101_000), "fast").met == 6
    assert of(server.look(101_000), "fast").missed == 8
    later = of(server.look(130_000), "fast").fluidity
    assert (later.last_10_s, later.last_60_s) == (None, 1.0)
    assert of(server.look(101_000), "slow").fluidity.since_start is None


def test_the_totals_are_all_that_the_metrics_say(scene: LiveScene, server: Server):
    scene.arrive("a")
    scene.arrive("s", SLOW)
    for ms in (100, 130, 700):
        scene.give(ms, "a s")
    scene.leave(720, "a")
    scene.leave(800, "s", "aborted")
    fast, slow = (of(server.look(900), name) for name in ("fast", "slow"))
    assert (fast.met, fast.missed, fast.finished, fast.fluid, fast.aborted) == (2, 7, 1, 0, 0)
    assert (slow.met, slow.missed, slow.finished, slow.fluid, slow.aborted) == (3, 0, 0, 1, 1)
    assert fast.tokens_per_s == pytest.approx(3 / 9.9)  # since the end of the tenth second before this one
    assert fast.tbt.count == 2
    assert fast.ttft.count == 1
    edges = [*LATENCY_BUCKETS, None]
    assert {edges[i]: n for i, n in enumerate(fast.tbt.counts) if n} == {0.03: 1, 0.75: 1}
    assert {edges[i]: n for i, n in enumerate(fast.ttft.counts) if n} == {0.1: 1}


@pytest.mark.parametrize("into_the_second_ms", [0, 250, 990])
def test_a_steady_stream_has_its_rate_whenever_one_looks(
    scene: LiveScene, server: Server, into_the_second_ms: int
):
    scene.arrive("a")
    for ms in range(20, 20_000 + into_the_second_ms, 20):
        scene.give(ms, "a")
    found = of(server.look(20_000 + into_the_second_ms), "fast").tokens_per_s
    assert found == pytest.approx(50, rel=0.01)


def test_a_stall_is_seen_while_it_lasts(scene: LiveScene, server: Server):
    scene.arrive("a")
    scene.arrive("p", ms=90)
    scene.give(100, "a")  # due next at 350
    step = scene.schedule(110, 1, {"p": 12_000}, predicted_ms=9000)
    early = of(server.look(350), "fast")
    assert (early.overdue.streams, early.overdue.uncounted_misses) == (0, 0)
    assert early.fluidity.last_10_s_with_overdue == early.fluidity.last_10_s == 1.0
    halfway = of(server.look(5_350), "fast").fluidity
    assert halfway.last_10_s == 1.0
    assert halfway.last_10_s_with_overdue == pytest.approx(1 / (1 + 101 + 100))
    document = server.look(10_350)
    late = of(document, "fast").overdue
    assert late.streams == 1
    assert late.oldest_stream_s == pytest.approx(10.0)
    assert late.prompts == 1
    assert late.oldest_prompt_s == pytest.approx(10.35 - 0.39)
    assert late.uncounted_misses == (10_000 // 50 + 1) + (9_960 // 50 + 1)
    running = document.engines[0].step
    assert running is not None
    assert running.prefill_tokens == 12_000
    assert running.running_ms == pytest.approx(10_240)
    assert running.predicted_ms == pytest.approx(9000)
    prompt = request(document, "p")
    assert prompt.state == "prefill"
    assert [(c.start_ago_ms, c.end_ago_ms, c.tokens) for c in prompt.chunks] == [(10_240, None, 12_000)]
    assert request(document, "a").overdue_ms == 10_000
    scene.end(110, 10_560, "a p", prefill=12_000)
    after = server.look(10_600)
    assert step == 2
    assert after.engines[0].step is None
    assert of(after, "fast").overdue.streams == 0
    assert [(c.start_ago_ms, c.end_ago_ms) for c in request(after, "p").chunks] == [(10_490, 40)]


def test_a_step_that_began_after_the_look_has_run_for_no_time(scene: LiveScene, server: Server):
    scene.arrive("p")
    scene.schedule(110, 0, {"p": 64})
    running = server.look(109).engines[0].step
    assert running is not None
    assert running.running_ms == 0


def test_a_chunk_whose_step_ended_unobserved_is_not_shown_as_running(scene: LiveScene, server: Server):
    scene.arrive("p")
    scene.schedule(10, 0, {"p": 64})
    scene.end(10, 40, flush=False)
    scene.schedule(50, 0, {"p": 64})
    chunks = request(server.look(1050), "p").chunks
    assert [(c.start_ago_ms, c.end_ago_ms) for c in chunks] == [(1040, 1010), (1000, None)]


# -- requests ----------------------------------------------------------------------------------------------------


def test_a_timeline_has_a_mark_for_every_token_and_says_which_were_late(scene: LiveScene, server: Server):
    scene.arrive("a")
    for ms in (100, 150, 700, 720):  # the fourth is due at 750
        scene.give(ms, "a")
    found = request(server.look(1000), "a")
    assert found.on_time_ago_ms == [900, 850, 280]
    assert found.late_ago_ms == [300]
    assert (found.tokens, found.met, found.missed) == (4, 3, 7)  # due at 400, 300 late: 7 misses
    assert found.ttft_ms == pytest.approx(100)
    assert (found.state, found.arrived_ago_ms, found.first_due_ago_ms) == ("decoding", 1000, 700)
    scene.leave(720, "a")
    ended = request(server.look(1300), "a")
    assert (ended.state, ended.ended_ago_ms, ended.overdue_ms) == ("finished", 580, 0)


def test_the_latest_requests_push_out_those_that_ended_first(scene: LiveScene, server: Server):
    scene.arrive("stays")
    for i in range(layout.REQUESTS + 5):
        scene.arrive(f"r{i}", ms=i + 1)
        scene.leave(i + 1, f"r{i}")
    names = {row["name"].decode() for row in scene.columns["requests"][0]}
    assert names == {"stays", *(f"r{i}" for i in range(6, layout.REQUESTS + 5))}
    document = server.look(100)
    assert [r.id for r in document.requests][:3] == ["r36", "r35", "r34"]


def test_more_live_requests_than_rows_keep_the_latest(scene: LiveScene, server: Server):
    names = [f"r{i}" for i in range(layout.REQUESTS + 8)]
    for i, name in enumerate(names):
        scene.arrive(name, ms=i)
    scene.give(100, " ".join(names))
    assert not scene.live.broken
    document = server.look(200)
    assert document.requests[0].id == names[-1]
    assert {r.tokens for r in document.requests} == {1}
    assert of(document, "fast").requests == len(names)
    for name in names:
        scene.leave(200, name)
    assert not scene.live.broken


def test_tokens_from_before_a_slot_changed_hands_stay_with_their_owner(scene: LiveScene, server: Server):
    """Steps are observed late, arrivals at once: the new tenant of a slot must not get the old one's tokens."""
    scene.arrive("old")
    slot = scene.table.rows["old"].slot
    batch = scene.table.emit(np.array([slot]), np.array([1]), at(100))
    outcome = scene.table.remove("old", "finished", at(100))
    row = scene.table.add("new", FAST, at(101), 10, 99)
    assert row is not None
    assert outcome is not None
    assert row.slot == slot
    scene.live.arrived(row)
    bind = scene.live.binder(row)
    from tests.unit.telemetry.scene import make_record

    scene.live.observe_step(make_record(), batch)
    scene.live.request_finished(scene.table.timeline(outcome), outcome)
    bind()
    document = server.look(200)
    assert (request(document, "old").tokens, request(document, "old").on_time_ago_ms) == (1, [100])
    assert (request(document, "new").tokens, request(document, "new").on_time_ago_ms) == (0, [])


def test_only_the_last_tokens_and_chunks_are_kept(scene: LiveScene, server: Server):
    scene.arrive("a")
    for i in range(layout.CHUNKS + 3):
        scene.schedule(i, 0, {"a": 16})
        scene.end(i, i + 0.5)
    for i in range(layout.TOKENS + 10):
        scene.give(1000 + 10 * i, "a")
    found = request(server.look(4000), "a")
    assert len(found.on_time_ago_ms) + len(found.late_ago_ms) == layout.TOKENS
    assert found.tokens == layout.TOKENS + 10
    assert len(found.chunks) == layout.CHUNKS
    assert found.chunks[-1].start_ago_ms == 4000 - layout.CHUNKS - 2


# -- choosing ----------------------------------------------------------------------------------------------------


def test_a_class_filter_leaves_the_others_out(scene: LiveScene, server: Server):
    scene.arrive("a")
    scene.arrive("s", SLOW)
    scene.give(100, "a s")
    document = server.look(200, slo_class="slow")
    assert [c.name for c in document.classes] == ["slow"]
    assert [r.id for r in document.requests] == ["s"]
    assert list(document.history.fluidity) == ["slow"]
    assert [t.name for t in document.targets] == ["fast", "slow"]
    assert document.selected_class == "slow"


def test_distributions_are_of_the_window_asked_for(scene: LiveScene, server: Server):
    scene.arrive("a")
    scene.give(100, "a")
    scene.give(130, "a")
    scene.give(30_000, "a")
    assert of(server.look(31_000, window_s=10), "fast").tbt.count == 1
    assert of(server.look(31_000, window_s=60), "fast").tbt.count == 2


def test_several_engines_add_up_and_can_be_looked_at_alone(session: str):
    first, second = LiveScene(session, 0), LiveScene(session, 1)
    server = Server(session, (0, 1))
    for i, scene in enumerate((first, second)):
        scene.arrive("a", ms=i)
        scene.give(100, "a")
    second.give(700, "a")
    document = server.look(800)
    assert of(document, "fast").met == 2
    assert of(document, "fast").missed == 7  # due at 351, 349 late
    assert {r.key for r in document.requests} == {"0:1", "1:1"}
    assert of(document, "fast").overdue.streams == 2
    alone = server.look(800, engine=0)
    assert (of(alone, "fast").met, of(alone, "fast").missed) == (1, 0)
    assert len(alone.engines) == 2


def test_an_engine_that_is_missing_is_named_and_left_out(session: str):
    LiveScene(session, 0)
    document = Server(session, (0, 1)).look(0)
    assert document.state == "partial"
    assert "engine 1" in document.message
    assert [e.state for e in document.engines] == ["live", "starting"]


def test_two_api_servers_say_the_same(scene: LiveScene, session: str):
    scene.arrive("a")
    scene.give(100, "a")
    assert Server(session).look(900) == Server(session).look(900)


# -- steps and errors --------------------------------------------------------------------------------------------


def test_steps_carry_what_was_scheduled(scene: LiveScene, server: Server):
    scene.arrive("a")
    scene.schedule(0, 0, {"a": 100}, running=3, waiting=4, free_blocks=BLOCKS // 4)
    scene.end(0, 40, "a", prefill=100)
    document = server.look(100)
    steps = document.steps
    assert steps is not None
    assert (steps.ago_ms, steps.duration_ms, steps.predicted_ms) == ([60], [40.0], [30.0])
    assert (steps.decode_tokens, steps.prefill_tokens, steps.budget) == ([1], [100], [512])
    (engine,) = document.engines
    assert (engine.running, engine.waiting, engine.kv_used) == (3, 4, 0.75)
    assert engine.last_step_ago_ms == pytest.approx(60)
    later = server.look(5000).history
    assert (later.running[-1], later.waiting[-1], later.kv_used[-1]) == (3, 4, 0.75)
    assert later.running[0] is None


def test_errors_and_a_policy_that_is_off_are_told(scene: LiveScene, server: Server):
    scene.buffer.add("plugin_errors", 2, ("one",))
    scene.buffer.add("plugin_errors", 3, ("other",))
    scene.buffer.add("relegations", 4)
    scene.buffer.add("unknown_slo_class", 1)
    scene.buffer.set("policy_enabled", 0)
    scene.send(10)
    document = server.look(20)
    assert document.errors.plugin_errors == 5
    assert document.errors.relegations == 4
    assert document.errors.unknown_slo_class == 1
    assert document.engines[0].policy_enabled is False


def test_a_failure_ends_the_page_and_nothing_else(scene: LiveScene, caplog: pytest.LogCaptureFixture):
    scene.live.scheduled("no step", [])
    assert scene.live.broken
    assert "live page" in caplog.text
    scene.arrive("a")
    scene.give(100, "a")


# -- the file ----------------------------------------------------------------------------------------------------


def test_a_reader_never_sees_half_a_change(scene: LiveScene, monkeypatch: pytest.MonkeyPatch):
    scene.arrive("a")
    version = scene.columns["head"]["version"]
    assert version[0] % 2 == 0
    version[0] += 1
    tries = []
    real = np.arange
    monkeypatch.setattr(reader.np, "arange", lambda *a: (tries.append(1), real(*a))[1])
    reader.copy(scene.columns)
    assert len(tries) == reader.TRIES
    tries.clear()
    version[0] += 1
    reader.copy(scene.columns)
    assert len(tries) == 1


def test_the_file_is_for_this_user_alone_and_goes_with_the_engine(scene: LiveScene, session: str):
    path = layout.live_path(session, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size == layout.file_type(2).itemsize < 2_000_000
    scene.close()
    assert not path.exists()


def test_a_file_of_another_form_is_not_read(tmp_path: Path):
    path = tmp_path / "live"
    assert layout.open_file(path, 2) is None
    path.write_bytes(b"x" * 10)
    assert layout.open_file(path, 2) is None
    path.write_bytes(bytes(layout.file_type(2).itemsize))
    assert layout.open_file(path, 2) is None
    columns = layout.create(path, 2)
    assert layout.open_file(path, 2) is None
    LiveWriter(columns, path, ["fast", "slow"], 0, 1)
    assert layout.open_file(path, 2) is not None
    assert layout.open_file(path, 3) is None


def test_files_of_dead_engines_are_removed(scene: LiveScene, session: str):
    dead = layout.live_path(session, 7)
    columns = layout.create(dead, 1)
    columns["head"]["pid"] = 2**22 + 5  # above the largest process id
    columns["head"]["magic"] = 1
    layout.remove_stale()
    assert not dead.exists()
    assert layout.live_path(session, 0).exists()


def test_a_zombie_does_not_count_as_alive():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert not reader.process_alive(child)
    os.waitpid(child, 0)
    assert not reader.process_alive(child)
    assert reader.process_alive(os.getpid())


def test_every_counter_of_the_page_is_a_metric():
    for name, _ in layout.counter_places(["fast"]):
        assert name in BY_NAME or name == "policy_disabled"


def test_quantiles_are_taken_inside_their_bucket():
    counts = np.zeros(layout.BUCKETS)
    assert quantile_ms(counts, 0.5) is None
    counts[LATENCY_BUCKETS.index(0.05)] = 100
    assert quantile_ms(counts, 0.5) == pytest.approx(45.0)
    counts[-1] = 100
    assert quantile_ms(counts, 0.99) == 120_000
