"""The real vLLM scheduler in an emulated engine loop: no model, no GPU, virtual time.

Real: VllmConfig, KVCacheConfig, KV-cache manager, the scheduler under test. Emulated: the model runner (a token per
request that is due one) and the clock. Stands in for engines that cannot run here: async scheduling is switched off
by vLLM's CPU platform. Loops mirror ``EngineCore.step`` and ``EngineCore.step_with_batch_queue``.
"""

from __future__ import annotations

import heapq
import json
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import (
    generate_scheduler_kv_cache_config,
    get_kv_cache_configs,
    get_request_block_hasher,
    init_none_hash,
    resolve_kv_cache_block_sizes,
)
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from sarathi_plugin import plugins
from sarathi_plugin.config import make_settings
from sarathi_plugin.engine.parts import Clock
from sarathi_plugin.engine.scheduler import build_scheduler
from sarathi_plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 640,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 64, "num_hidden_layers": 2, "vocab_size": 1024,
    "max_position_embeddings": 16384, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu",
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


init_none_hash(sha256)


class VirtualClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.ns = 10**9

    def clock(self) -> Clock:
        return Clock(lambda: self.ns, lambda: self.ns / 1e9)


def make_config(
    folder: Path,
    *,
    budget: int = 2048,
    max_seqs: int = 256,
    max_model_len: int = 8192,
    asynchronous: bool = False,
    prefix_caching: bool = False,
    spec_tokens: int = 0,
    **more: Any,
) -> Any:
    """A real VllmConfig for a small Llama."""
    (folder / "config.json").write_text(json.dumps(MODEL))
    if spec_tokens:
        more["speculative_config"] = {
            "method": "ngram", "num_speculative_tokens": spec_tokens, "prompt_lookup_max": 3
        }  # fmt: skip
    config = EngineArgs(
        model=str(folder), skip_tokenizer_init=True, dtype="bfloat16", block_size=16,
        max_model_len=max_model_len, max_num_batched_tokens=budget, max_num_seqs=max_seqs,
        enable_prefix_caching=prefix_caching, enforce_eager=True, **more,
    ).create_engine_config()  # fmt: skip
    config.scheduler_config.async_scheduling = asynchronous
    if config.cache_config.kv_cache_layout is None:
        config.cache_config.kv_cache_layout = "LBNHC"
    return config


def make_scheduler(
    config: Any,
    name: str | None = "sarathi",
    *,
    blocks: int = 4000,
    clock: VirtualClock | None = None,
    log_stats: bool = True,
    observer: object | None = None,
    installs: dict[str, object] | None = None,
    session: str = "",
    **settings: Any,
) -> Any:
    """The scheduler under test; name None gives stock vLLM's. session: names what it shares with a live page.

    observer, installs: third-party plugins to load, the policies among them by the name of theirs.
    """
    hf = config.model_config.hf_config
    spec = FullAttentionSpec(
        block_size=16, num_kv_heads=1, head_size=hf.head_dim, dtype=torch.bfloat16
    )  # fmt: skip
    layers = {f"model.layers.{i}.self_attn.attn": spec for i in range(hf.num_hidden_layers)}
    page = spec.page_size_bytes * len(layers)
    kv = generate_scheduler_kv_cache_config(get_kv_cache_configs(config, [layers], [page * blocks]))
    config.cache_config.num_gpu_blocks = kv.num_blocks
    block_size, hash_block_size = resolve_kv_cache_block_sizes(kv, config)
    arguments = {
        "vllm_config": config,
        "kv_cache_config": kv,
        "structured_output_manager": StructuredOutputManager(config),
        "block_size": block_size,
        "hash_block_size": hash_block_size,
        "log_stats": log_stats,
    }
    if name is None:
        stock = AsyncScheduler if config.scheduler_config.async_scheduling else Scheduler
        return stock(**arguments)
    others = dict(installs or {})
    if observer is not None:
        others["listener"] = observer
    names = [n for n, plugin in others.items() if not hasattr(plugin, "register_policies")]
    chosen = make_settings(scheduler=name, plugins=names, **settings).model_copy(update={"session": session})
    with installed(**others):
        return build_scheduler(settings=chosen, clock=(clock or VirtualClock()).clock(), **arguments)


@dataclass(frozen=True, slots=True)
class Step:
    """One step that carried something. tokens: in the order scheduled; prompts: who computed prompt tokens in it."""

    schedule_ns: int
    start_ns: int
    end_ns: int
    tokens: dict[str, int]
    prompts: frozenset[str]
    waiting: tuple[str, ...]

    @property
    def duration_ns(self) -> int:
        """Time on the emulated device."""
        return self.end_ns - self.start_ns

    @property
    def decodes(self) -> list[str]:
        """Who yields a further token."""
        return [name for name in self.tokens if name not in self.prompts]

    @property
    def total(self) -> int:
        return sum(self.tokens.values())

    @property
    def kind(self) -> str:
        if not self.prompts:
            return "decode"
        return "mixed" if self.decodes else "prefill"


@dataclass
class Trace:
    """What the emulated engine saw. decisions: everything a worker is told, turn by turn, empty steps included."""

    steps: list[Step] = field(default_factory=list)
    decisions: list[tuple[Any, ...]] = field(default_factory=list)
    arrivals: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, list[int]] = field(default_factory=dict)
    finished: dict[str, str] = field(default_factory=dict)
    aborted_ns: dict[str, int] = field(default_factory=dict)
    preemptions: int = 0
    empty: int = 0

    def gaps(self, name: str) -> list[int]:
        """Time between tokens of one request."""
        times = self.tokens[name]
        return [b - a for a, b in pairwise(times)]


class Engine:
    """Drives one scheduler. step_ns(output) gives a step's duration; depth: steps in flight (2 for async)."""

    def __init__(
        self,
        scheduler: Any,
        clock: VirtualClock,
        step_ns: Callable[[Any], int],
        *,
        depth: int = 1,
        accept: Callable[[int], int] = lambda drafted: drafted,
    ) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self.step_ns = step_ns
        self.depth = depth
        self.accept = accept
        self.trace = Trace()
        self.messages: list[Any] = []
        self.submitted: dict[str, Request] = {}
        self._queue: deque[tuple[int, Any, list[list[int]]]] = deque()
        self._device_free = 0
        self._arrivals: list[tuple[int, int, Request]] = []
        self._doomed: list[str] = []
        self._decoding: set[str] = set()

    def submit(
        self,
        at_ns: int,
        prompt: int | list[int],
        max_tokens: int,
        name: str = "",
        *,
        priority: int = 0,
        **extra: Any,
    ) -> str:
        """Queue a request for a moment of virtual time; returns its id. extra: its ``vllm_xargs``."""
        count = len(self.submitted) + 1
        name = name or f"r{count}"
        ids = [1 + count % 900] * prompt if isinstance(prompt, int) else prompt
        sampling = SamplingParams(
            max_tokens=max_tokens, ignore_eos=True, temperature=0.0, extra_args=extra or None
        )
        config = self.scheduler.vllm_config
        caches = config.cache_config.enable_prefix_caching
        request = Request(
            request_id=name,
            prompt_token_ids=ids,
            sampling_params=sampling,
            pooling_params=None,
            arrival_time=at_ns / 1e9,
            priority=priority,
            block_hasher=get_request_block_hasher(16, sha256) if caches else None,
        )
        self.submitted[name] = request
        heapq.heappush(self._arrivals, (at_ns, count, request))
        return name

    def admit(self) -> None:
        """Hand over what has arrived: the engine looks only between steps."""
        while self._arrivals and self._arrivals[0][0] <= self.clock.ns:
            at_ns, _, request = heapq.heappop(self._arrivals)
            self.trace.tokens[request.request_id] = []
            self.trace.arrivals[request.request_id] = at_ns
            self.scheduler.add_request(request)

    def abort(self, name: str) -> None:
        """The client went away; noticed between steps."""
        if name in self.scheduler.requests:
            self.trace.finished[name] = "abort"
            self.trace.aborted_ns[name] = self.clock.ns
        self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)

    def abort_mid_flight(self, name: str) -> None:
        """The client goes away while a step executes; noticed before its outputs are processed."""
        self._doomed.append(name)

    @property
    def in_flight(self) -> int:
        """Steps scheduled and not yet processed."""
        return len(self._queue)

    def _schedule(self) -> None:
        scheduler, now = self.scheduler, self.clock.ns
        output = scheduler.schedule()
        requests = scheduler.requests
        preempted = sorted(output.preempted_req_ids or ())
        self._decoding.difference_update(preempted)
        tokens = dict(output.num_scheduled_tokens)
        start = max(now, self._device_free)
        end = start + self.step_ns(output) if tokens else start
        prompts = frozenset(name for name in tokens if name not in self._decoding)
        sampled = []
        for name in tokens:
            drafted = len(output.scheduled_spec_decode_tokens.get(name, ()))
            due = not requests[name].is_prefill_chunk
            if due:
                self._decoding.add(name)
            sampled.append([7] * (1 + self.accept(drafted)) if due else [])
        if tokens:
            waiting = tuple(request.request_id for request in scheduler.waiting)
            self.trace.steps.append(Step(now, start, end, tokens, prompts, waiting))
        else:
            self.trace.empty += 1
        self.trace.preemptions += len(preempted)
        self.trace.decisions.append(decision(output))
        self._device_free = end
        self._queue.append((end, output, sampled))

    def _update(self) -> None:
        end, output, sampled = self._queue.popleft()
        self.clock.ns = max(self.clock.ns, end)
        for name in self._doomed:
            self.abort(name)
        self._doomed.clear()
        names = list(output.num_scheduled_tokens)
        result = ModelRunnerOutput(
            req_ids=names, req_id_to_index={n: i for i, n in enumerate(names)}, sampled_token_ids=sampled
        )
        for outputs in self.scheduler.update_from_output(output, result).values():
            stats = outputs.scheduler_stats
            if stats is not None and getattr(stats, "sarathi", None):
                self.messages.append(stats.sarathi)
            for out in outputs.outputs:
                self.trace.tokens[out.request_id] += [self.clock.ns] * len(out.new_token_ids)
                if out.finish_reason is not None:
                    self.trace.finished[out.request_id] = str(out.finish_reason)
        self._draft()

    def _draft(self) -> None:
        spec = self.scheduler.num_spec_tokens
        if spec and self.depth == 1:
            names = [r.request_id for r in self.scheduler.running if not r.is_prefill_chunk]
            self.scheduler.update_draft_token_ids(DraftTokenIds(names, [[7] * spec for _ in names]))

    def step(self) -> bool:
        """One turn of the engine's loop; False when there is nothing to do."""
        self.admit()
        if not self._queue and not self.scheduler.has_requests():
            return self._idle()
        executed = False
        if self.scheduler.has_requests():
            self._schedule()
            executed = bool(self._queue[-1][1].total_num_scheduled_tokens)
            if len(self._queue) < self.depth and (executed or self.scheduler.has_requests()):
                return self._pause(executed)
        self._update()
        return self._pause(executed)

    def _pause(self, executed: bool) -> bool:
        """The engine sleeps for a millisecond after an empty step."""
        if not executed and self.scheduler.has_requests():
            self.clock.ns += 10**6
        return True

    def _idle(self) -> bool:
        if not self._arrivals:
            return False
        self.clock.ns = max(self.clock.ns, self._arrivals[0][0])
        return True

    def run(self, limit: int = 100_000) -> Trace:
        """Until everything is answered."""
        for _ in range(limit):
            if not self.step():
                return self.trace
        raise AssertionError(f"not done after {limit} turns")

    def drain_messages(self) -> list[Any]:
        """All metric messages, with what still waits for a step to carry it."""
        rest = self.scheduler.sarathi._buffer.drain()
        return [*self.messages, *([rest] if rest else [])]


def decision(output: Any) -> tuple[Any, ...]:
    """What a SchedulerOutput tells the workers, in a form that compares."""
    cached = output.scheduled_cached_reqs
    return (
        tuple(output.num_scheduled_tokens.items()),
        tuple((data.req_id, data.num_computed_tokens, data.block_ids) for data in output.scheduled_new_reqs),
        tuple(zip(cached.req_ids, cached.num_computed_tokens, map(repr, cached.new_block_ids), strict=True)),
        tuple(sorted(cached.resumed_req_ids)),
        tuple(sorted(output.preempted_req_ids or ())),
        tuple(sorted(output.finished_req_ids)),
        tuple((name, len(tokens)) for name, tokens in output.scheduled_spec_decode_tokens.items()),
    )


def counted(messages: list[Any]) -> dict[tuple[str, tuple[str, ...]], float]:
    """Counters over all messages, by (name, labels)."""
    totals: dict[tuple[str, tuple[str, ...]], float] = {}
    for message in messages:
        for name, labels, value in message["c"]:
            key = (name, tuple(labels))
            totals[key] = totals.get(key, 0) + value
    return totals


def gauges(messages: list[Any]) -> dict[tuple[str, tuple[str, ...]], float]:
    """Last value of every gauge, by (name, labels)."""
    return {(name, tuple(labels)): value for message in messages for name, labels, value in message["g"]}


def histograms(messages: list[Any]) -> dict[tuple[str, tuple[str, ...]], tuple[float, list[int]]]:
    """(sum, bucket counts) of every histogram, by (name, labels)."""
    totals: dict[tuple[str, tuple[str, ...]], tuple[float, list[int]]] = {}
    for message in messages:
        for name, labels, total, buckets in message["h"]:
            key = (name, tuple(labels))
            before = totals.get(key, (0.0, [0] * len(buckets)))
            totals[key] = (before[0] + total, [a + b for a, b in zip(before[1], buckets, strict=True)])
    return totals


class Point:
    """Stands in for an installed package's entry point."""

    def __init__(self, plugin: object) -> None:
        self._plugin = plugin

    def load(self) -> object:
        return self._plugin


@contextmanager
def installed(**found: object) -> Iterator[None]:
    """These plugins are installed, by name."""
    original = plugins.find_entry_points
    plugins.find_entry_points = lambda: {name: Point(plugin) for name, plugin in found.items()}
    try:
        yield
    finally:
        plugins.find_entry_points = original


class Listener:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.gaps: list[Any] = []
        self.timelines: dict[str, Any] = {}

    @hookimpl
    def observe_step(self, record: Any, tokens: Any) -> None:
        self.steps.append(record)
        self.gaps.append((tokens.counts.tolist(), tokens.gaps_ns.tolist()))

    @hookimpl
    def request_finished(self, timeline: Any, outcome: Any) -> None:
        del outcome
        self.timelines[timeline.request_id] = timeline


def linear_time(fixed_ns: int, token_ns: int) -> Callable[[Any], int]:
    """A step that costs a constant and something per token."""
    return lambda output: fixed_ns + token_ns * output.total_num_scheduled_tokens
