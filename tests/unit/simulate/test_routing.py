"""Routers: who gets a request, known by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.simulate.routing import ROUTERS, KvAware, LeastOutstanding, RoundRobin, make_router
from sarathi_plugin.workload.trace import Segment, TraceRequest


def request(*segments: tuple[int, int]) -> TraceRequest:
    """A request whose prompt consists of (content, tokens)."""
    parts = tuple(Segment(*segment) for segment in segments)
    tokens = sum(part.tokens for part in parts) or 10
    return TraceRequest(request_id="r", offset_ns=0, prompt_tokens=tokens, output_tokens=5, segments=parts)


def turn(session: int, turns: int) -> TraceRequest:
    """The n-th turn of a session: one content that grows by the answers and questions."""
    return request((session, 100 * turns))


def test_round_robin_takes_turns_whatever_the_load():
    router = RoundRobin()
    assert [router.choose(request(), [9, 0, 5]) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    ("outstanding", "chosen"),
    [([3, 1, 2], 1), ([0, 0, 0], 0), ([2, 1, 1], 1), ([5], 0), ([4, 4, 3], 2)],
)
def test_least_outstanding_is_the_first_of_the_least_busy(outstanding: Sequence[int], chosen: int):
    assert LeastOutstanding().choose(request(), outstanding) == chosen


def test_least_outstanding_keeps_no_memory():
    router = LeastOutstanding()
    assert [router.choose(request(), [1, 0]) for _ in range(3)] == [1, 1, 1]


def test_kv_aware_without_anything_known_is_least_outstanding():
    for outstanding in ([3, 1, 2], [0, 0], [2, 1, 1]):
        assert KvAware().choose(turn(1, 1), outstanding) == outstanding.index(min(outstanding))


def test_kv_aware_brings_a_session_back_to_its_replica():
    router = KvAware()
    assert router.choose(turn(1, 1), [2, 0, 1]) == 1
    assert router.choose(turn(2, 1), [0, 1, 1]) == 0
    for turns in (2, 3, 4):
        assert router.choose(turn(1, turns), [0, 4, 0]) == 1
        assert router.choose(turn(2, turns), [3, 0, 0]) == 0


def test_kv_aware_spills_over_when_the_replica_is_far_busier():
    router = KvAware(spread=4)
    assert router.choose(turn(1, 1), [0, 0]) == 0
    assert router.choose(turn(1, 2), [4, 0]) == 0
    assert router.choose(turn(1, 3), [5, 0]) == 1


def test_kv_aware_knows_whoever_took_over_as_well():
    router = KvAware(spread=4)
    router.choose(turn(1, 1), [0, 9])
    router.choose(turn(1, 2), [9, 0])
    assert router.choose(turn(1, 3), [1, 0]) == 1
    assert router.choose(turn(1, 4), [0, 1]) == 0


def test_kv_aware_prefers_the_longest_known_prefix():
    router = KvAware()
    assert router.choose(request((7, 500), (1, 100)), [0, 1, 1]) == 0
    assert router.choose(request((8, 50), (2, 100)), [1, 0, 1]) == 1
    assert router.choose(request((7, 500), (3, 10)), [3, 0, 0]) == 0
    assert router.choose(request((8, 50), (2, 100), (4, 10)), [0, 3, 0]) == 1


def test_kv_aware_takes_a_prefix_only_from_the_start():
    router = KvAware()
    assert router.choose(request((7, 500), (1, 100)), [0, 1]) == 0
    assert router.choose(request((9, 10), (1, 100)), [1, 0]) == 1


def test_kv_aware_sends_requests_that_share_nothing_to_the_least_busy():
    router = KvAware()
    assert [router.choose(request(), outstanding) for outstanding in ([0, 1], [1, 0], [3, 2])] == [0, 1, 1]


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_has_a_name_and_a_memory_of_its_own(name: str):
    first, second = make_router(name), make_router(name)
    assert type(first) is ROUTERS[name]
    assert first.choose(turn(1, 1), [0, 0]) == second.choose(turn(1, 1), [0, 0]) == 0


def test_an_unknown_router_is_refused_with_those_that_are_known():
    with pytest.raises(ConfigError) as caught:
        make_router("random")
    assert str(caught.value) == ("Unknown router 'random'; known: round-robin, least-outstanding, kv-aware.")
