"""Writes the journal of a scheduler: reads vLLM's objects at the four moments the driver meets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sarathi_plugin.telemetry import broken
from sarathi_plugin.telemetry.journal import Arrived, Event, Hashed, Left, Scheduled, Updated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HASH_BYTES = 12
"""Of each block hash: enough to tell blocks apart, short enough to write down."""

guarded = broken.guarded("The journal failed; the engine goes on, this recording cannot be replayed.")
"""A gap in a journal would make it worthless."""


class Journal:
    """put(event): takes an event without blocking. No method raises; broken: whether one failed."""

    def __init__(self, put: Callable[[Event], None]) -> None:
        self._put = put
        self.broken = False
        self._hashes: dict[str, tuple[Any, int]] = {}

    @guarded
    def arrived(self, request: Any, now_ns: int, wall_s: float) -> None:
        """A request is about to be added."""
        hashes = request.block_hashes  # grows in place as the answer does
        self._hashes[request.request_id] = (hashes, len(hashes))
        slo_class = (request.sampling_params.extra_args or {}).get("slo_class") or ""
        self._put(
            Arrived(
                request.request_id,
                now_ns,
                wall_s,
                request.arrival_time,
                request.num_prompt_tokens,
                request.max_tokens,
                request.priority,
                slo_class if isinstance(slo_class, str) else "",
                _short(hashes),
            )
        )

    @guarded
    def scheduled(self, output: Any, now_ns: int) -> None:
        """A step was scheduled, planned at ``now_ns``."""
        tokens = output.num_scheduled_tokens
        preempted = tuple(sorted(output.preempted_req_ids or ()))
        self._put(Scheduled(now_ns, tuple(tokens), tuple(tokens.values()), preempted))

    @guarded
    def updated(self, outs: list[Any], now_ns: int) -> None:
        """A step is done."""
        emitted = {out.request_id: len(out.new_token_ids) for out in outs if len(out.new_token_ids) != 1}
        ended = [out for out in outs if out.finish_reason is not None]
        stopped = tuple(out.request_id for out in ended if str(out.finish_reason) == "stop")
        self._put(Updated(now_ns, emitted, stopped))
        for out in ended:
            self._close(out.request_id)

    @guarded
    def left(self, request_ids: Iterable[str] | None, status: Any, now_ns: int) -> None:
        """Requests are ended from outside; status: vLLM's RequestStatus."""
        names = None if request_ids is None else tuple(request_ids)
        self._put(Left(now_ns, names, status.name))
        for name in list(self._hashes) if names is None else names:
            self._close(name)

    def _close(self, name: str) -> None:
        hashes, known = self._hashes.pop(name, ((), 0))
        if len(hashes) > known:
            self._put(Hashed(name, _short(hashes[known:])))


def _short(hashes: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(bytes(value)[:HASH_BYTES].hex() for value in hashes)
