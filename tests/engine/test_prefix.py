"""What the prefix cache holds of a waiting prompt is as good as computed: for its rank, its size and its memory."""

from __future__ import annotations

import logging
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from vllm.v1.kv_cache_interface import FullAttentionSpec, SlidingWindowSpec

from sarathi_plugin.engine.prefix import PROBES, keeps_all
from tests.engine.emulator import Engine, VirtualClock, counted, linear_time, make_scheduler
from tests.engine.workloads import MS, assert_all_answered

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.vllm

LENGTH = 4096


class Chat:
    """An engine with prefix caching in which one client has had its first turn, and another's answer still runs."""

    def __init__(self, config: Any, *, blocks: int = 2000, first: int = 2000, **settings: Any) -> None:
        self.random = Random(1)
        self.clock = VirtualClock()
        self.scheduler = make_scheduler(config, "sarathi", blocks=blocks, clock=self.clock, **settings)
        self.engine = Engine(self.scheduler, self.clock, linear_time(10 * MS, MS // 10))
        self.turn = self.tokens(first)
        self.engine.submit(self.clock.ns, self.turn, 1, "first turn")
        self.engine.submit(self.clock.ns, self.tokens(10), 500, "runs")
        while "first turn" not in self.engine.trace.finished:
            self.engine.step()

    def tokens(self, count: int) -> list[int]:
        """A text of its own."""
        return [self.random.randrange(3, 1000) for _ in range(count)]

    def wait(self, name: str, prompt: list[int]) -> None:
        """A request that has arrived and is not admitted yet."""
        self.engine.submit(self.clock.ns, prompt, 2, name)
        self.engine.admit()

    def seen(self) -> dict[str, tuple[int, int]]:
        """(tokens cached, tokens left) of the waiting prompts, as a policy sees them."""
        table, prompts = self.scheduler.sarathi._table, self.scheduler.sarathi._adapter._load_prompts()
        columns = (prompts.slots, prompts.context_tokens, prompts.left_tokens)
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        return {table.row_at(slot).request_id: (cached, left) for slot, cached, left in rows}


@pytest.fixture
def config(config_for: Callable[..., Any]) -> Any:
    return config_for(budget=2048, max_model_len=LENGTH, prefix_caching=True)


def test_of_a_second_turn_only_what_is_new_is_left(config: Any) -> None:
    chat = Chat(config)
    chat.wait("second turn", chat.turn + chat.tokens(100))
    chat.wait("stranger", chat.tokens(300))
    assert chat.seen() == {"second turn": (2000, 100), "stranger": (0, 300)}


def test_a_prompt_that_is_cached_to_its_end_has_a_block_left(config: Any) -> None:
    chat = Chat(config)
    chat.wait("again", chat.turn)
    assert chat.seen() == {"again": (1984, 16)}


def test_without_prefix_caching_all_of_it_is_left(config_for: Callable[..., Any]) -> None:
    chat = Chat(config_for(budget=2048, max_model_len=LENGTH))
    chat.wait("second turn", chat.turn + chat.tokens(100))
    assert chat.seen() == {"second turn": (0, 2100)}


def test_who_does_not_want_to_know_sees_all_of_it_as_left(config: Any) -> None:
    chat = Chat(config, policy={"prefix_hits": False})
    chat.wait("second turn", chat.turn + chat.tokens(100))
    assert chat.seen() == {"second turn": (0, 2100)}


def test_a_short_rest_goes_before_a_prompt_that_is_shorter_as_a_whole(config: Any) -> None:
    chat = Chat(config)
    for number in range(3):
        chat.engine.submit(chat.clock.ns, chat.tokens(1500), 2, f"stranger {number}")
    chat.engine.submit(chat.clock.ns, chat.turn + chat.tokens(40), 2, "second turn")
    while "second turn" not in chat.engine.trace.finished:
        chat.engine.step()
    started = list(dict.fromkeys(name for step in chat.engine.trace.steps for name in step.tokens))
    assert started.index("second turn") == 2, (
        "after the first turn and the answer that runs, before the strangers"
    )


def test_what_comes_into_the_cache_and_what_is_evicted_is_seen_while_it_waits(
    config_for: Callable[..., Any],
) -> None:
    chat = Chat(config_for(budget=2048, max_model_len=LENGTH, prefix_caching=True, max_seqs=2))
    text = chat.tokens(1000)
    chat.wait("one", text + chat.tokens(200))
    chat.wait("other", text + chat.tokens(300))
    assert chat.seen()["other"] == (0, 1300)
    while "one" not in chat.engine.trace.finished:  # until then the batch is full
        chat.engine.step()
    assert chat.seen() == {"other": (992, 308)}
    pool = chat.scheduler.kv_cache_manager.block_pool
    pool.free_blocks(pool.get_new_blocks(pool.get_num_free_blocks()))
    assert chat.seen() == {"other": (0, 1300)}


def test_many_that_come_at_once_are_not_looked_up_in_one_plan(config: Any) -> None:
    chat = Chat(config)
    for number in range(50):
        chat.wait(f"turn {number}", chat.turn + chat.tokens(100))
    known = [sum(cached == 2000 for cached, _ in chat.seen().values()) for _ in range(7)]
    assert known[0] <= 2 * PROBES
    assert known == sorted(known)
    assert known[-1] == 50


@pytest.mark.parametrize("running", [False, True])
def test_cached_blocks_are_needed_unless_somebody_holds_them(config: Any, *, running: bool) -> None:
    chat = Chat(config)
    if running:
        chat.engine.submit(chat.clock.ns, chat.turn + chat.tokens(16), 300, "holds them")
        for _ in range(4):
            chat.engine.step()
    chat.wait("second turn", chat.turn + chat.tokens(100))
    assert chat.seen()["second turn"] == (2000, 100)
    row = chat.scheduler.sarathi._table.rows["second turn"]
    assert chat.scheduler.sarathi._adapter.view.blocks_needed(row) == (7 if running else 132)
    free = chat.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    while "second turn" not in {name for step in chat.engine.trace.steps for name in step.tokens}:
        chat.engine.step()
    taken = free - chat.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    assert taken - (7 if running else 132) in (0, 1, 2), "what it took, and a block or two for the answers"


def test_where_layers_let_go_of_blocks_vllms_own_lookup_is_asked(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sarathi_plugin.engine.prefix.keeps_all", lambda _: False)
    chat = Chat(config)
    coordinator = chat.scheduler.kv_cache_manager.coordinator
    find, asked = coordinator.find_longest_cache_hit, []
    monkeypatch.setattr(coordinator, "find_longest_cache_hit", lambda *given: asked.append(1) or find(*given))
    chat.wait("second turn", chat.turn + chat.tokens(100))
    assert chat.seen() == {"second turn": (2000, 100)}
    assert asked


@pytest.mark.parametrize(
    ("specs", "simple"),
    [
        ([FullAttentionSpec], True),
        ([SlidingWindowSpec], False),
        ([FullAttentionSpec, SlidingWindowSpec], False),
    ],
)
def test_models_with_layers_that_keep_a_window_are_told_apart(specs: list[type], *, simple: bool) -> None:
    groups = [SimpleNamespace(kv_cache_spec=object.__new__(spec)) for spec in specs]
    scheduler = SimpleNamespace(kv_cache_config=SimpleNamespace(kv_cache_groups=groups))
    assert keeps_all(scheduler) == simple


def test_vllms_own_count_of_hits_knows_nothing_of_it(config: Any) -> None:
    chat = Chat(config)
    stats = chat.scheduler.kv_cache_manager.prefix_cache_stats
    asked, queries = stats.requests, stats.queries
    chat.wait("second turn", chat.turn + chat.tokens(100))
    chat.seen()
    chat.seen()
    assert (stats.requests, stats.queries) == (asked, queries)


def test_a_cache_that_cannot_be_read_costs_this_knowledge_alone(
    config: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chat = Chat(config)
    asked = []

    def broken(*_: object) -> None:
        asked.append(1)
        raise RuntimeError("another vLLM")

    manager = chat.scheduler.kv_cache_manager
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "sarathi_plugin"):
        patch.setattr(manager.block_pool, "get_cached_block", broken)
        chat.wait("second turn", chat.turn + chat.tokens(100))
        assert chat.seen() == {"second turn": (0, 2100)}
        chat.wait("third turn", chat.turn + chat.tokens(100))
        assert chat.seen()["third turn"] == (0, 2100)
    assert len(asked) == 1
    assert caplog.text.count("they count as whole from now on") == 1
    while chat.engine.step():
        pass
    assert_all_answered(chat.engine)
    counters = counted(chat.engine.drain_messages())
    assert not any(key[0] in ("policy_fallbacks", "plugin_errors") for key in counters)


@pytest.mark.parametrize("decodes", [0, 3])
@pytest.mark.parametrize("cached", [False, True], ids=["whole", "cached"])
def test_a_prompt_with_one_token_left_has_room_for_the_draft_that_vllm_pads_it_with(
    config_for: Callable[..., Any], decodes: int, cached: bool
) -> None:
    """vLLM admits it with as many rows as a decode with drafts has, or not at all."""
    config = config_for(budget=512, max_model_len=LENGTH, prefix_caching=True, spec_tokens=2)
    clock, random = VirtualClock(), Random(1)
    scheduler = make_scheduler(config, "sarathi", blocks=2000, clock=clock, policy={"cold_chunk": 1})
    engine = Engine(scheduler, clock, linear_time(10 * MS, MS // 10), accept=lambda drafted: 0)
    prompt = [random.randrange(3, 1000) for _ in range(scheduler.block_size + 1 if cached else 1)]
    if cached:
        engine.submit(clock.ns, prompt, 1, "before")
        while engine.step():
            pass
    for _ in range(decodes):
        engine.submit(clock.ns, [random.randrange(3, 1000) for _ in range(5)], 100)
    for _ in range(20 if decodes else 0):
        engine.step()

    engine.submit(clock.ns, prompt, 1, "again")
    engine.step()

    assert "again" in engine.trace.finished, "it was not in the very next step"
