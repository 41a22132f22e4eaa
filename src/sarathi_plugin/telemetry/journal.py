"""Everything a scheduler was told, in order: what a replay needs to reach the same decisions.

A recording holds these events beside steps and timelines. Each carries the clock readings that our code took then.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request was added.

    arrival_s, wall_s: wall-clock seconds at the server and here. hashes: of the prompt's blocks.
    """

    request_id: str
    now_ns: int
    wall_s: float
    arrival_s: float
    prompt_tokens: int
    max_tokens: int
    priority: int
    slo_class: str
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A step was scheduled: who got how many tokens, in order, and who lost its place."""

    now_ns: int
    names: tuple[str, ...]
    tokens: tuple[int, ...]
    preempted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Updated:
    """The oldest scheduled step is done.

    emitted: tokens of those that did not get just one. stopped: who ended before its limit.
    """

    now_ns: int
    emitted: dict[str, int]
    stopped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Left:
    """Requests ended from outside (None: all). status: vLLM's name of how."""

    now_ns: int
    request_ids: tuple[str, ...] | None
    status: str


@dataclass(frozen=True, slots=True)
class Hashed:
    """A request has ended: hashes of the blocks that its answer filled, after those of its prompt."""

    request_id: str
    hashes: tuple[str, ...]


Event = Arrived | Scheduled | Updated | Left | Hashed
EVENTS: dict[str, type[Event]] = {
    "arrived": Arrived,
    "scheduled": Scheduled,
    "updated": Updated,
    "left": Left,
    "hashed": Hashed,
}
KINDS = {kind: name for name, kind in EVENTS.items()}
