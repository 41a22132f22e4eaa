"""Requests of a trace as vLLM's own: lengths are real, token contents are stood for by hashes."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Any

from vllm.sampling_params import SamplingParams
from vllm.v1.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.workload.trace import TraceRequest

TOKEN, STOP = 7, 9
"""What prompts and answers consist of, and what ends an answer before its limit."""


class RequestFactory:
    """Makes vLLM requests. block_size: tokens hashed together, 0 without prefix caching."""

    def __init__(self, block_size: int, epoch_ns: int) -> None:
        self._block_size = block_size
        self._epoch_ns = epoch_ns
        self._sampling: dict[tuple[int, str], SamplingParams] = {}

    def make(self, asked: TraceRequest, number: int, *, min_tokens_before_stop: int | None = None) -> Request:
        """The request, with an answer of exactly ``output_tokens``.

        number: distinct per request; content of its own is told apart by it. min_tokens_before_stop: the most tokens
        it asked for, when it is known to stop earlier by itself (then ``STOP`` must be its last token).
        """
        limit = min_tokens_before_stop or asked.output_tokens
        hasher = segment_hasher(asked, number, self._block_size) if self._block_size else None
        return Request(
            request_id=asked.request_id,
            prompt_token_ids=[TOKEN] * asked.prompt_tokens,
            sampling_params=self._sampling_params(limit, asked.slo_class),
            pooling_params=None,
            arrival_time=(self._epoch_ns + asked.offset_ns) / 1e9,
            priority=asked.priority,
            block_hasher=hasher,
        )

    def _sampling_params(self, limit: int, slo_class: str) -> SamplingParams:
        key = (limit, slo_class)
        if key not in self._sampling:
            self._sampling[key] = SamplingParams(
                max_tokens=limit,
                ignore_eos=True,
                stop_token_ids=[STOP],
                temperature=0.0,
                extra_args={"slo_class": slo_class} if slo_class else None,
            )
        return self._sampling[key]


def segment_hasher(asked: TraceRequest, number: int, block_size: int) -> Callable[[Any], list[bytes]]:
    """A block hasher that knows contents by name: equal hashes just where two requests share a prefix.

    A block's hash is made of everything up to its end: the segments before, and how far it reaches into its own.
    vLLM's content hashes have the same meaning; these take no time per token.
    """
    ends, seeds = _chain(asked, number)

    def hashes(request: Any) -> list[bytes]:
        found = []
        start = len(request.block_hashes)
        for block in range(start, request.num_tokens // block_size):
            last = (block + 1) * block_size
            at = 0
            while at < len(ends) - 1 and last > ends[at]:
                at += 1
            found.append(struct.pack("<i", last) + seeds[at])
        return found

    return hashes


def _chain(asked: TraceRequest, number: int) -> tuple[list[int], list[bytes]]:
    """(where each segment ends, a digest of it and all before). The last one goes on into the answer."""
    digest = hashlib.blake2b(digest_size=24)
    ends, seeds, total = [], [], 0
    for content, tokens in asked.segments:
        total += tokens
        digest.update(struct.pack("<qq", content, total - tokens))
        ends.append(total)
        seeds.append(digest.copy().digest())
    if not asked.segments:
        digest.update(struct.pack("<qq", -1 - number, 0))
        ends.append(asked.prompt_tokens)
        seeds.append(digest.digest())
    return ends, seeds
