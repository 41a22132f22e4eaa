"""What vLLM's prefix cache holds of the prompts that wait: as good as computed already."""

from __future__ import annotations

import logging
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec

from sarathi_plugin.policies.base import blocks_for

if TYPE_CHECKING:
    from sarathi_plugin.core import RequestRow
    from sarathi_plugin.telemetry.table import RequestTable

logger = logging.getLogger(__name__)

PROBES = 8
"""In every plan so many prompts that came since are looked up, and so many others looked at again, in turns."""


class PrefixHits:
    """Keeps ``computed_tokens`` of the waiting rows at what vLLM would find in its cache if it admitted them now.

    Looked up when a prompt comes (what was said before is there by then) and from time to time while it waits: others
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
        self._plain = self._hashed == scheduler.block_size and keeps_all(scheduler)
        caches = getattr(self._manager, "enable_caching", False)
        self._on = bool(wanted and caches and hasattr(self._manager, "coordinator"))

    def came(self, request_id: str) -> None:
        """A request waits, new or again."""
        if self._on:
            self._new[request_id] = None

    def gone(self, request_id: str) -> None:
        """A request waits no longer."""
        self._new.pop(request_id, None)

    def refresh(self) -> None:
        """Bring the rows of some that came since, and of a few others, up to date."""
        if not self._on:
            return
        try:
            self._look_up_new()
            self._look_again()
        except Exception:
            self._give_up()

    def blocks_needed(self, row: RequestRow) -> int:
        """KV blocks that admitting a waiting request takes from the free ones.

        Cached ones in use are shared, and one whose KV a connector has fetched holds its own already.
        """
        size = self._scheduler.block_size
        most = blocks_for(row.total_tokens, size)
        request = self._scheduler.requests.get(row.request_id)
        if request is not None and request.num_computed_tokens:
            return max(0, most - blocks_for(request.num_computed_tokens, size))
        if not self._on or not row.computed_tokens or request is None:
            return most
        try:
            return most - len([block for block in self._find(request)[0][0] if block.ref_cnt > 0])
        except Exception:
            self._give_up()
            return most

    def _look_up_new(self) -> None:
        rows, prompts = self._table.rows, self._table.prompts
        for _ in range(min(PROBES, len(self._new))):
            name = next(iter(self._new))
            del self._new[name]
            row = rows.get(name)
            if row is not None and prompts.waits(row.slot):
                self._look_up(row)

    def _look_again(self) -> None:
        waiting = self._table.prompts.waiting
        count = len(waiting)
        for _ in range(min(PROBES, count)):
            self._next = (self._next + 1) % count
            row = self._table.row_at(int(waiting[self._next]))
            if self._changed(row):
                self._look_up(row)

    def _changed(self, row: RequestRow) -> bool:
        """Whether the last block that was there is gone, or the one after it has come."""
        request = self._scheduler.requests.get(row.request_id)
        if request is None:
            return False
        if request.num_computed_tokens:  # fetched by a KV connector
            return bool(request.num_computed_tokens != row.computed_tokens)
        at = row.computed_tokens // self._hashed
        gone = 0 < at <= len(request.block_hashes) and not self._cached(request, at - 1)
        return gone or (at < len(request.block_hashes) and self._cached(request, at))

    def _look_up(self, row: RequestRow) -> None:
        request = self._scheduler.requests.get(row.request_id)
        if request is None or getattr(request, "skip_reading_prefix_cache", False):
            return
        if request.num_computed_tokens:
            hit = request.num_computed_tokens
        elif self._plain:
            # The last token is computed in any case: it yields the first one of the answer.
            most = min((request.num_tokens - 1) // self._hashed, len(request.block_hashes))
            # Blocks are freed, and so evicted, from the end: what is cached of a prompt is a beginning of it.
            hit = self._hashed * bisect_left(
                range(most), 1, key=lambda at: int(not self._cached(request, at))
            )
        else:
            hit = int(self._find(request)[1])
        if hit != row.computed_tokens:
            row.total_tokens, row.computed_tokens = request.num_tokens, hit
            self._table.prompts.wait(row)

    def _cached(self, request: Any, at: int) -> bool:
        """Whether a block of a prompt is in the cache."""
        return self._manager.block_pool.get_cached_block(request.block_hashes[at], [0]) is not None

    def _find(self, request: Any) -> Any:
        """(blocks by group, tokens, ...): what vLLM itself asks at admission, without being counted in its metrics.

        Takes time per block.
        """
        return self._manager.coordinator.find_longest_cache_hit(request.block_hashes, request.num_tokens - 1)

    def _give_up(self) -> None:
        self._on = False
        self._new.clear()
        logger.exception(
            "Prefix-cache hits of waiting prompts cannot be read; they count as whole from now on."
        )


def keeps_all(scheduler: Any) -> bool:
    """Whether all layers keep every block of a prompt, none only those of a window."""
    groups = scheduler.kv_cache_config.kv_cache_groups
    return len(groups) == 1 and type(groups[0].kv_cache_spec) in (FullAttentionSpec, MLAAttentionSpec)
