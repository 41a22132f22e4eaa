"""What vLLM's prefix cache holds of the prompts that wait: as good as computed already."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sarathi_plugin.policies.base import blocks_for

if TYPE_CHECKING:
    from sarathi_plugin.core import RequestRow
    from sarathi_plugin.telemetry.table import RequestTable

logger = logging.getLogger(__name__)

PROBES = 8
"""So many waiting prompts are looked at again in every plan, in turns. A look takes two hash lookups, whatever the
length, unless what is cached has changed."""

BLOCKS = 512
"""When lookups in one plan have found so many blocks (about 0.3 ms), the others wait for the next plan."""


class PrefixHits:
    """Keeps ``computed_tokens`` of the waiting rows at what vLLM would find in its cache if it admitted them now.

    Looked up when a prompt comes (that of a turn before is there by then) and from time to time while it waits: others
    with the same prefix are computed, blocks are evicted. Tokens that a KV connector could fetch do not count. Whatever
    goes wrong here costs this knowledge and nothing else.
    """

    def __init__(self, scheduler: Any, table: RequestTable, *, wanted: bool = True) -> None:
        self._scheduler = scheduler
        self._table = table
        self._manager = scheduler.kv_cache_manager
        self._new: dict[str, None] = {}
        self._next = 0
        self._hashed = int(getattr(scheduler, "hash_block_size", None) or scheduler.block_size)
        caches = getattr(self._manager, "enable_caching", False)
        self._on = bool(wanted and caches and hasattr(self._manager, "coordinator"))

    def came(self, request_id: str) -> None:
        """A request waits, new or again."""
        if self._on:
            self._new[request_id] = None

    def refresh(self) -> None:
        """Bring the rows of those that came since, and of a few others, up to date."""
        if not self._on:
            return
        try:
            self._look_again(BLOCKS - self._look_up_new(BLOCKS))
        except Exception:
            self._give_up()

    def blocks_needed(self, row: RequestRow) -> int:
        """KV blocks that admitting a waiting request takes from the free ones: cached ones in use are shared."""
        size = self._scheduler.block_size
        most = blocks_for(row.total_tokens, size)
        request = self._scheduler.requests.get(row.request_id)
        if not self._on or not row.computed_tokens or request is None:
            return most
        try:
            groups = self._find(request)[0]
            return most - len([block for block in groups[0] if block.ref_cnt > 0])
        except Exception:
            self._give_up()
            return most

    def _look_up_new(self, most: int) -> int:
        """Look up those that came, until ``most`` blocks are found; returns how many were."""
        rows, prompts = self._table.rows, self._table.prompts
        found = 0
        while self._new and found < most:
            name = next(iter(self._new))
            del self._new[name]
            row = rows.get(name)
            if row is not None and prompts.waits(row.slot):
                found += self._look_up(row)
        return found

    def _look_again(self, most: int) -> None:
        waiting = self._table.prompts.waiting
        count, found = len(waiting), 0
        for _ in range(min(PROBES, count)):
            if found >= most:
                break
            self._next = (self._next + 1) % count
            row = self._table.row_at(int(waiting[self._next]))
            if self._changed(row):
                found += self._look_up(row)

    def _changed(self, row: RequestRow) -> bool:
        """Whether the last block that was there is gone, or the one after it has come: blocks go from the end."""
        request = self._scheduler.requests.get(row.request_id)
        if request is None:
            return False
        pool, hashes = self._manager.block_pool, request.block_hashes
        at = row.computed_tokens // self._hashed
        gone = 0 < at <= len(hashes) and pool.get_cached_block(hashes[at - 1], [0]) is None
        return gone or (at < len(hashes) and pool.get_cached_block(hashes[at], [0]) is not None)

    def _look_up(self, row: RequestRow) -> int:
        """Write down what is there of a prompt; returns how many blocks that is."""
        request = self._scheduler.requests.get(row.request_id)
        if request is None or getattr(request, "skip_reading_prefix_cache", False):
            return 0
        hit = int(self._find(request)[1])
        if hit != row.computed_tokens:
            row.computed_tokens = hit
            self._table.prompts.wait(row)
        return hit // self._hashed

    def _find(self, request: Any) -> Any:
        """(blocks by group, tokens, ...): what vLLM itself asks at admission, without being counted in its metrics."""
        return self._manager.coordinator.find_longest_cache_hit(request.block_hashes, request.num_tokens - 1)

    def _give_up(self) -> None:
        self._on = False
        self._new.clear()
        logger.exception(
            "Prefix-cache hits of waiting prompts cannot be read; they count as whole from now on."
        )
