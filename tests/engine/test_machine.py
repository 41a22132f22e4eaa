"""Any order of events under every policy: vLLM's own assertions hold, nobody starves, nothing is lost or miscounted."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any
from zlib import crc32

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sarathi_plugin.engine.prefix import PROBES
from tests.engine.emulator import Engine, VirtualClock, counted, make_scheduler
from tests.engine.workloads import CLASSES, MS, assert_all_answered, batch_counts, waiting_for

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.vllm

LENGTH = 256
BLOCKS = 24
"""The null block, one request of the full length and a little more: preemption is common."""

POLICIES: dict[str, dict[str, Any]] = {
    "vllm": {},
    "sarathi": {},
    "sarathi-gap": {"slo": "gap"},
    "sarathi-static": {"token_budget": 48},
    "niyama": {},
    "fair-batching": {},
    "p-pas": {},
    "orca": {},
    "prefill-first": {},
    "request-level": {},
    "alternate": {"token_budget": 48},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "sync": {},
    "async": {"asynchronous": True},
    "spec": {"spec_tokens": 2},
}

requests = st.tuples(
    st.one_of(st.integers(1, 120), st.integers(1, LENGTH - 1)),
    st.one_of(st.integers(1, 40), st.integers(1, 40), st.integers(1, LENGTH)),
    st.sampled_from([None, *CLASSES]),
    st.integers(0, 2),
    st.booleans(),
)
bursts = st.tuples(st.just("submit"), st.lists(requests, min_size=2, max_size=7))
aborts = st.tuples(st.sampled_from(["abort", "abort mid-flight"]), st.integers(0, 30))
turns = st.tuples(st.just("turns"), st.integers(1, 20))
pauses = st.tuples(st.just("pause"), st.sampled_from([1, 30, 400, 5000]))
scripts = st.lists(st.one_of(bursts, aborts, turns, turns, pauses), min_size=12, max_size=30)


class Machine:
    """One engine under one script, checked at every turn."""

    def __init__(self, config: Any, policy: str, *, tiny: bool, seed: int) -> None:
        self.clock = VirtualClock()
        self.scheduler = make_scheduler(
            config,
            policy.removesuffix("-gap"),
            blocks=BLOCKS if tiny else 1000,
            clock=self.clock,
            **POLICIES[policy],
        )
        self.random = Random(seed)
        self.pace = self.random.choice([MS // 100, MS, 10 * MS])
        depth = 2 if config.scheduler_config.async_scheduling else 1
        self.engine = Engine(
            self.scheduler,
            self.clock,
            self.step_ns,
            depth=depth,
            accept=lambda drafted: self.random.randint(0, drafted),
        )
        self.pool = self.scheduler.kv_cache_manager.block_pool
        self.free_blocks = self.pool.get_num_free_blocks()
        self.levers = self.read_levers()

    def step_ns(self, output: Any) -> int:
        hiccup = 40 if self.random.random() < 0.05 else 1
        noise = self.random.uniform(0.5, 1.5)
        return 1 + round(
            hiccup * noise * (5 * self.pace + self.pace * output.total_num_scheduled_tokens / 10)
        )

    def read_levers(self) -> tuple[Any, ...]:
        scheduler = self.scheduler
        return (
            scheduler.max_num_scheduled_tokens,
            scheduler.max_num_active_reqs,
            scheduler.max_num_running_reqs,
            scheduler.scheduler_config.enable_chunked_prefill,
        )

    def play(self, script: list[Any]) -> None:
        for action, *rest in script:
            if action == "submit":
                for request in rest[0]:
                    self.submit(*request)
            elif action == "turns":
                for _ in range(rest[0]):
                    self.turn()
            elif action == "pause":
                self.clock.ns += rest[0] * MS
            elif names := list(self.engine.trace.tokens):
                name = names[rest[0] % len(names)]
                if action == "abort":
                    self.engine.abort(name)
                else:
                    self.engine.abort_mid_flight(name)
            self.check()

    def submit(self, prompt: int, output: int, slo_class: str | None, priority: int, same: bool) -> None:
        extra = {} if slo_class is None else {"slo_class": slo_class}
        ids = [3] * prompt if same else [self.random.randrange(3, 1000) for _ in range(prompt)]
        self.engine.submit(self.clock.ns, ids, output, priority=priority, **extra)

    def turn(self) -> bool:
        more = self.engine.step()
        self.check()
        return more

    def check(self) -> None:
        scheduler = self.scheduler
        assert self.read_levers() == self.levers
        assert set(scheduler.sarathi._table.rows) == set(scheduler.requests)
        assert len(scheduler.running) <= scheduler.max_num_running_reqs
        self.check_queue()
        # With --scheduling-policy priority a plan cannot choose who waits first, and may find out by an empty step.
        most = int(scheduler.policy.value == "priority")
        assert scheduler.sarathi._adapter.idle_turns <= most, (
            "work was there, and a policy of ours held it back"
        )

    def check_queue(self) -> None:
        """The columns by which prompts are ranked hold just those that wait: what is cached of them, and the rest."""
        scheduler, table = self.scheduler, self.scheduler.sarathi._table
        adapter = scheduler.sarathi._adapter
        prompts, under_way = adapter._load_prompts(), len(adapter.view.prefills)
        columns = prompts.slots, prompts.left_tokens, prompts.context_tokens
        waiting = list(zip(*(column[under_way:].tolist() for column in columns), strict=True))
        held = {table.row_at(slot).request_id: left + cached for slot, left, cached in waiting}
        assert held == {request.request_id: request.num_tokens for request in scheduler.waiting}
        if len(waiting) > PROBES:  # not all of them were looked at again
            return
        find = scheduler.kv_cache_manager.coordinator.find_longest_cache_hit
        for slot, _, cached in waiting:
            request = scheduler.requests[table.row_at(slot).request_id]
            assert cached == find(request.block_hashes, request.num_tokens - 1)[1]

    def finish(self) -> None:
        """Nobody new comes: everything is answered in a bounded number of turns."""
        work = sum(r.num_prompt_tokens + r.max_tokens for r in self.engine.submitted.values())
        for _ in range(50 + 6 * work):
            if not self.turn():
                break
        else:
            raise AssertionError(f"somebody starves: {waiting_for(self.engine)}")
        assert_all_answered(self.engine)
        assert self.pool.get_num_free_blocks() == self.free_blocks
        assert not self.scheduler.sarathi._in_flight
        table = self.scheduler.sarathi._table
        assert not table.rows
        assert (table.slo_index < 0).all()
        self.check_counters()

    def check_counters(self) -> None:
        counters = counted(self.engine.drain_messages())
        failures = {key: n for key, n in counters.items() if key[0] in ("policy_fallbacks", "plugin_errors")}
        assert not failures
        expected = batch_counts(self.engine)
        names = {"deadlines_met", "deadlines_missed", "output_tokens", "requests_finished"}
        assert {key: n for key, n in counters.items() if key[0] in names} == expected
        assert counters.get(("preemptions", ()), 0) == self.engine.trace.preemptions
        steps = self.engine.trace.steps
        for kind in ("decode", "mixed", "prefill"):
            chosen = [step for step in steps if step.kind == kind]
            prefill = sum(step.tokens[name] for step in chosen for name in step.prompts)
            decode = sum(step.tokens[name] for step in chosen for name in step.decodes)
            assert counters.get(("step_prefill_tokens", (kind,)), 0) == prefill
            assert counters.get(("step_decode_tokens", (kind,)), 0) == decode


def check(config_for: Callable[..., Any], policy: str, variant: str, examples: int) -> None:
    @hypothesis.seed(crc32(f"{policy} {variant}".encode()))
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(scripts, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**32))
    def any_script(script: list[Any], tiny: bool, caching: bool, by_priority: bool, seed: int) -> None:
        config = config_for(
            budget=LENGTH,
            max_seqs=12,
            max_model_len=LENGTH,
            prefix_caching=caching,
            scheduling_policy="priority" if by_priority else "fcfs",
            **VARIANTS[variant],
        )
        machine = Machine(config, policy, tiny=tiny, seed=seed)
        machine.play(script)
        machine.finish()

    any_script()


@pytest.mark.timeout(1200)  # of which hypothesis takes up to five minutes to make a failure small
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_any_script(config_for: Callable[..., Any], policy: str, variant: str) -> None:
    check(config_for, policy, variant, examples=15)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_any_script_at_length(config_for: Callable[..., Any], policy: str, variant: str) -> None:
    check(config_for, policy, variant, examples=30)
