"""Which engine gets a request: the router in front of several replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.workload.trace import TraceRequest

RouterName = Literal["round-robin", "least-outstanding", "kv-aware"]


class Router(Protocol):
    """Chooses a replica for each request, in the order of arrival."""

    def choose(self, asked: TraceRequest, outstanding: Sequence[int]) -> int:
        """Index of the replica. outstanding: requests arrived and not ended, by replica."""


class RoundRobin:
    """One after another."""

    def __init__(self) -> None:
        self._turn = -1

    def choose(self, asked: TraceRequest, outstanding: Sequence[int]) -> int:
        """The next."""
        del asked
        self._turn = (self._turn + 1) % len(outstanding)
        return self._turn


class LeastOutstanding:
    """To whoever has fewest unfinished requests, the first of equals."""

    def choose(self, asked: TraceRequest, outstanding: Sequence[int]) -> int:
        """The least loaded."""
        del asked
        return min(range(len(outstanding)), key=lambda i: (outstanding[i], i))


class KvAware:
    """To whoever has served most of the request's prefix, unless that one is far busier than the least busy.

    spread: unfinished requests more than the least busy replica's at which a cached prefix no longer counts.
    """

    def __init__(self, spread: int = 4) -> None:
        self._spread = spread
        self._seen: list[dict[tuple[tuple[int, int], ...], None]] = []

    def choose(self, asked: TraceRequest, outstanding: Sequence[int]) -> int:
        """The longest known prefix among those that are not too busy; the least busy of equals."""
        if not self._seen:
            self._seen = [{} for _ in outstanding]
        least = min(outstanding)
        free = [i for i, load in enumerate(outstanding) if load - least <= self._spread]
        chosen = max(free, key=lambda i: (self._known(asked, i), -outstanding[i], -i))
        for end in range(len(asked.segments)):
            self._seen[chosen][self._prefix(asked, end + 1)] = None
        return chosen

    @staticmethod
    def _prefix(asked: TraceRequest, segments: int) -> tuple[tuple[int, int], ...]:
        """A prefix by the contents of its segments; the last one may have grown since, so its length is left out."""
        parts = asked.segments[:segments]
        return tuple((part.content, part.tokens if i < segments - 1 else 0) for i, part in enumerate(parts))

    def _known(self, asked: TraceRequest, replica: int) -> int:
        """Tokens of the request's prefix that the replica has seen, as far as whole segments tell."""
        known = 0
        for end, part in enumerate(asked.segments):
            if self._prefix(asked, end + 1) not in self._seen[replica]:
                break
            known += part.tokens
        return known


ROUTERS: dict[str, type[RoundRobin] | type[LeastOutstanding] | type[KvAware]] = {
    "round-robin": RoundRobin,
    "least-outstanding": LeastOutstanding,
    "kv-aware": KvAware,
}


def make_router(name: str) -> Router:
    """A router by name. Raises ConfigError."""
    if name not in ROUTERS:
        raise ConfigError(f"Unknown router {name!r}; known: {', '.join(ROUTERS)}.")
    return ROUTERS[name]()
