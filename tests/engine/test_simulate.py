"""The simulator: the same tokens at the same times as an independent loop, fast-forward or not."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import StepPlan
from sarathi_plugin.engine.adapt import Adapter
from sarathi_plugin.engine.tokens import TokenTaker
from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.policies.base import Policy
from sarathi_plugin.policies.stock import Stock
from sarathi_plugin.simulate import build
from sarathi_plugin.simulate.clock import EPOCH_NS
from sarathi_plugin.simulate.disturbance import Disturbance
from sarathi_plugin.simulate.run import Simulation, simulate
from sarathi_plugin.simulate.spec import EngineSpec
from sarathi_plugin.steptime.profile import Residuals
from sarathi_plugin.telemetry.table import RequestTable
from sarathi_plugin.workload.trace import Segment, Trace, TraceRequest
from tests.engine import emulator
from tests.engine.simulations import MODEL, NOISE, TARGETS, make_profile, make_traffic, run

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.vllm

POLICIES = (
    "vllm", "sarathi", "sarathi-static", "fair-batching", "p-pas", "orca", "prefill-first", "request-level",
    "alternate",
)  # fmt: skip
LOOPS = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
SCARCE = {"num_gpu_blocks_override": 80, "max_model_len": 1024}


@LOOPS
@pytest.mark.parametrize("scheduler", ["stock", *POLICIES])
@pytest.mark.parametrize("memory", [{}, SCARCE], ids=["ample", "scarce"])
def test_fast_forward_changes_nothing(scheduler: str, asynchronous: bool, memory: dict[str, int]) -> None:
    traffic = make_traffic(60, gap_s=0.3, aborts=7, shared=64, prompt=(10, 500), output=(20, 200))
    more = {
        "profile": make_profile(noise=NOISE),
        "async_scheduling": asynchronous,
        "steps": scheduler != "stock",
    }
    plain = run(scheduler, traffic, forward=False, **more, **memory)
    quick = run(scheduler, traffic, forward=True, **more, **memory)
    assert quick.timelines == plain.timelines
    assert quick.steps == plain.steps
    assert quick.engines[0].steps == plain.engines[0].steps
    assert quick.engines[0].stage_busy_ns == plain.engines[0].stage_busy_ns
    assert plain.engines[0].coasted == 0
    assert quick.engines[0].coasted > 80
    assert any(timeline.status == "aborted" for timeline in plain.timelines)
    if scheduler == "stock":
        assert (plain.engines[0].preemptions > 0) == bool(memory)


@LOOPS
@pytest.mark.parametrize("scheduler", ["stock", "sarathi"])
def test_tokens_come_when_an_independent_loop_says(
    config_for: Callable[..., Any], scheduler: str, asynchronous: bool
) -> None:
    traffic = make_traffic(50, gap_s=0.05)
    budget = 512 if scheduler == "stock" else 8192
    found = run(
        scheduler, traffic, async_scheduling=asynchronous, max_num_batched_tokens=budget, max_model_len=2048
    )

    clock = emulator.VirtualClock()
    clock.ns = EPOCH_NS
    config = config_for(budget=budget, max_seqs=64, max_model_len=2048, asynchronous=asynchronous)
    settings = {"tbt_ms": 50, "ttft_slack_ms": 300}
    name = None if scheduler == "stock" else scheduler
    scheduling = emulator.make_scheduler(
        config, name, blocks=50_000, clock=clock, **(settings if name else {})
    )
    step = emulator.linear_time(10_000_000, 50_000)
    engine = emulator.Engine(scheduling, clock, step, depth=2 if asynchronous else 1)
    for asked in traffic.requests:
        engine.submit(EPOCH_NS + asked.offset_ns, asked.prompt_tokens, asked.output_tokens, asked.request_id)
    trace = engine.run()
    for timeline in found.timelines:
        theirs = trace.tokens[timeline.request_id]
        # A float of seconds has no nanoseconds to spare: a few are lost in the table of step times.
        assert list(timeline.token_ns) == pytest.approx(theirs, abs=2000)
    assert found.engines[0].steps == len(trace.steps) + trace.empty


@LOOPS
def test_the_plugin_counts_deadlines_as_the_simulator_does(
    asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, tuple[int, int]] = {}

    class Watcher:
        @hookimpl
        def request_finished(self, timeline: Any) -> None:
            seen[timeline.request_id] = (timeline.met, timeline.missed)

    original = build.build_scheduler
    monkeypatch.setattr(
        build, "build_scheduler", lambda **a: original(**{**a, "observers": {"watcher": Watcher()}})
    )
    found = run(
        "sarathi", make_traffic(60, gap_s=0.02, aborts=9, prompt=(10, 3000)), async_scheduling=asynchronous
    )
    assert seen == {t.request_id: (t.met, t.missed) for t in found.timelines}
    assert sum(missed for _, missed in seen.values()) > 0


def test_same_seed_same_result_other_seed_another() -> None:
    traffic = make_traffic(30)
    noisy = make_profile(noise=NOISE)
    first = run("sarathi", traffic, profile=noisy, steps=True)
    assert run("sarathi", traffic, profile=noisy, steps=True) == first
    assert run("sarathi", traffic, profile=noisy, steps=True, seed=1).timelines != first.timelines


def test_residuals_give_the_tail_that_a_mean_has_not() -> None:
    traffic = make_traffic(20, gap_s=1.0, output=(100, 120))
    wide = Residuals(decode=[0.5] * 8 + [1.0] * 8 + [3.0] * 2, prefill=[1.0, 1.0])
    still = sorted(gap for t in run("stock", traffic).timelines for gap in t.gaps_ns)
    noisy = sorted(
        gap for t in run("stock", traffic, profile=make_profile(noise=wide)).timelines for gap in t.gaps_ns
    )
    assert noisy[int(0.98 * len(noisy))] > 2 * still[int(0.98 * len(still))]


def test_the_first_steps_cost_what_the_profile_says() -> None:
    asked = TraceRequest(request_id="a", offset_ns=0, prompt_tokens=100, output_tokens=3)
    profile = make_profile(host_s=0.001, frontend_s=0.005)
    (timeline,) = run("stock", Trace("one", (asked,)), profile=profile, async_scheduling=False).timelines
    prefill, decode = 10_000_000 + 100 * 50_000, 10_050_000
    start = EPOCH_NS + 5_000_000
    expected = [start + prefill, start + prefill + 1_000_000 + decode]
    expected.append(expected[-1] + 1_000_000 + decode)
    assert list(timeline.token_ns) == pytest.approx(expected, abs=1000)
    assert timeline.arrival_ns == EPOCH_NS
    assert timeline.status == "finished"


def test_shared_prefixes_are_computed_once() -> None:
    def lone(prefix: int, start_s: float, name: str) -> TraceRequest:
        parts = (Segment(1, prefix), Segment(hash(name) % 1000, 100))
        return TraceRequest(
            request_id=name,
            offset_ns=int(start_s * 1e9),
            prompt_tokens=prefix + 100,
            output_tokens=2,
            segments=parts,
        )

    trace = Trace("two", (lone(1600, 0, "first"), lone(1600, 5, "second")))
    first, second = run("stock", trace).timelines
    assert first.ttft_ns > second.ttft_ns + 70_000_000  # 1,600 tokens of 50 us
    off = run("stock", trace, enable_prefix_caching=False).timelines
    assert off[1].ttft_ns == pytest.approx(off[0].ttft_ns, abs=1000)


@LOOPS
def test_named_contents_are_cached_as_real_tokens_are(
    config_for: Callable[..., Any], asynchronous: bool
) -> None:
    """Segments against vLLM's own content hashes over tokens that say the same."""
    traffic = make_traffic(40, gap_s=0.05, shared=200, prompt=(5, 300))
    found = run(
        "stock", traffic, async_scheduling=asynchronous, max_num_batched_tokens=512, max_model_len=2048
    )
    clock = emulator.VirtualClock()
    clock.ns = EPOCH_NS
    config = config_for(
        budget=512, max_seqs=64, max_model_len=2048, asynchronous=asynchronous, prefix_caching=True
    )
    engine = emulator.Engine(
        emulator.make_scheduler(config, None, blocks=50_000, clock=clock),
        clock,
        emulator.linear_time(10_000_000, 50_000),
        depth=2 if asynchronous else 1,
    )
    for i, asked in enumerate(traffic.requests):
        tokens = [
            3 + (part.content + 2 if part.content < 0 else 10 + i)
            for part in asked.segments
            for _ in range(part.tokens)
        ]
        engine.submit(EPOCH_NS + asked.offset_ns, tokens, asked.output_tokens, asked.request_id)
    trace = engine.run()
    for timeline in found.timelines:
        assert list(timeline.token_ns) == pytest.approx(trace.tokens[timeline.request_id], abs=2000)


@LOOPS
def test_speculative_decoding_follows_the_acceptance_rate(asynchronous: bool) -> None:
    traffic = make_traffic(10, gap_s=20.0, output=(200, 201))  # one at a time

    def steps_at(acceptance: float) -> int:
        speculation = {"tokens": 3, "acceptance": acceptance}
        found = run("sarathi", traffic, speculation=speculation, async_scheduling=asynchronous)
        assert all(len(t.token_ns) == 200 for t in found.timelines)
        return found.engines[0].steps

    none, all_, some = steps_at(0.0), steps_at(1.0), steps_at(0.6)
    assert none / all_ == pytest.approx(4, rel=0.15)
    assert none / some == pytest.approx(
        (1 - 0.6**4) / 0.4, rel=0.15
    )  # Leviathan et al., arXiv 2211.17192, eq. 1


@pytest.mark.parametrize("scheduler", ["stock", "sarathi"])
def test_pipeline_stages_overlap_steps_and_idle_in_between(scheduler: str) -> None:
    traffic = make_traffic(40, gap_s=0.02)
    one = run(scheduler, traffic, async_scheduling=False)
    two = run(scheduler, traffic, async_scheduling=False, pipeline_parallel_size=2)
    assert all(t.status == "finished" for t in two.timelines)
    assert len(two.engines[0].stage_busy_ns) == 2
    assert all(0 < share < 1 for share in two.engines[0].stage_idle_shares)
    assert two.engines[0].span_ns < one.engines[0].span_ns  # steps of the two halves run side by side


def test_whole_prompts_leave_pipeline_bubbles_that_chunks_do_not() -> None:
    traffic = make_traffic(60, gap_s=0.03, prompt=(10, 3000), output=(50, 100))
    more = {"async_scheduling": False, "pipeline_parallel_size": 2}
    idle = {
        name: run(name, traffic, **more).engines[0].stage_idle_shares[1]
        for name in ("prefill-first", "sarathi-static")
    }
    assert idle["prefill-first"] > idle["sarathi-static"]


@pytest.mark.parametrize("router", ["round-robin", "least-outstanding", "kv-aware"])
def test_replicas_share_the_requests(router: str) -> None:
    traffic = make_traffic(60, gap_s=0.02)
    alone = run("stock", traffic)
    found = run("stock", traffic, replicas=3, router=router)
    assert [t.request_id for t in found.timelines] == [r.request_id for r in traffic.requests]
    counts = [engine.requests for engine in found.engines]
    assert sum(counts) == 60
    assert min(counts) >= 10
    assert sum(t.ttft_ns for t in found.timelines) < sum(t.ttft_ns for t in alone.timelines)
    if router == "round-robin":
        assert counts == [20, 20, 20]


def test_priorities_and_classes_reach_the_scheduler() -> None:
    requests = [
        TraceRequest(
            request_id=f"r{i}",
            offset_ns=0,
            prompt_tokens=1000,
            output_tokens=2,
            priority=9 - i,
            slo_class="interactive",
        )
        for i in range(10)
    ]
    found = run(
        "stock", Trace("ranked", tuple(requests)), scheduling_policy="priority", max_num_batched_tokens=512
    )
    order = sorted(found.timelines, key=lambda t: t.token_ns[0])
    assert [t.request_id for t in order][1:] == [f"r{i}" for i in range(9, -1, -1)][1:]
    ours = run("sarathi", Trace("classes", tuple(requests)))
    assert {t.slo_class for t in ours.timelines} == {"interactive"}


def test_a_simulation_can_be_cut_off() -> None:
    traffic = make_traffic(20, gap_s=0.01)
    wanted = Simulation(
        profile=make_profile(),
        engine=EngineSpec(scheduler="stock"),
        trace=traffic,
        targets=TARGETS,
        longest_s=0.5,
    )
    statuses = {t.status for t in simulate(wanted).timelines}
    assert statuses == {"finished", "timeout"}
    assert {t.status for t in simulate(replace(wanted, longest_s=100.0)).timelines} == {"finished"}


def test_kv_memory_becomes_blocks_as_vllm_counts_them() -> None:
    token = 2 * MODEL.layers * MODEL.kv_heads * MODEL.head_dim * 2
    traffic = make_traffic(2)
    found = run("stock", traffic, kv_cache_memory_bytes=1000 * 16 * token)
    assert found.engines[0].blocks == 1000
    halves = run(
        "stock",
        traffic,
        kv_cache_memory_bytes=1000 * 16 * token,
        pipeline_parallel_size=2,
        async_scheduling=False,
    )
    assert halves.engines[0].blocks == 2000


BAD = {
    "KV memory too small for one request": (
        {"kv_cache_memory_bytes": 10**6},
        "cannot hold one request of 4096 tokens",
    ),
    "unknown policy": ({"scheduler": "sarathy"}, "Unknown scheduler 'sarathy'; known: sarathi"),
    "a profile of another model": (
        {"settings": {"step_time_profile": "h100-llama-2-7b"}},
        "is of meta-llama/Llama-2-7b-hf (layers 32), and tiny is served (layers 4)",
    ),
    "model length": ({"max_model_len": 100}, "more than the model length of 100"),
    "more stages than layers": (
        {"pipeline_parallel_size": 5},
        "5 pipeline stages are more than the 4 layers",
    ),
    "vLLM refuses": ({"long_prefill_token_threshold": 5000}, "vLLM refuses these engine arguments"),
}


@pytest.mark.parametrize(("engine", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence(engine: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(engine.pop("scheduler", "sarathi"), make_traffic(5), **engine)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_policies_that_do_not_declare_it_are_never_fast_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = make_traffic(10, gap_s=0.5)
    assert run("vllm", traffic).engines[0].coasted > 0
    monkeypatch.setattr(Stock, "coasts", Policy.coasts)
    assert run("vllm", traffic).engines[0].coasted == 0


def test_a_disturbed_machine_takes_just_so_much_longer() -> None:
    """One request: its tokens come at the profile's pace, and at a third of it from the given moment on."""
    trace = Trace("one", (TraceRequest(request_id="r", offset_ns=0, prompt_tokens=16, output_tokens=41),))

    def gaps(disturbance: Disturbance | None) -> list[int]:
        wanted = Simulation(
            profile=make_profile(),
            engine=EngineSpec(scheduler="stock", async_scheduling=False),
            trace=trace,
            targets=TARGETS,
            disturbance=disturbance,
        )
        return simulate(wanted).timelines[0].gaps_ns

    calm = gaps(None)
    half = 20 * calm[0]
    slowed = gaps(Disturbance(slow_from_ns=half, slowdown=3))
    assert set(calm) == {calm[0]}
    assert {round(gap / calm[0], 3) for gap in slowed} == {1, 3}
    assert 18 <= slowed.count(calm[0]) <= 20
    assert gaps(Disturbance(outlier_share=1, outlier_factor=10)) == [10 * gap for gap in calm]


FAILING = {
    "always": (lambda _: 1 / 0, r"failed at 6 of \d+ steps \(ZeroDivisionError: division by zero\); nothing"),
    "no plan": (lambda _: 3, r"failed at 6 of \d+ steps \(AttributeError: "),
    "text for a time": (
        lambda _: StepPlan(available_ns="soon"),  # type: ignore[arg-type]
        r"failed at \d+ of \d+ steps \(TypeError: of a plan, available_ns must be an int or None",
    ),
}


@pytest.mark.parametrize(("plan", "sentence"), FAILING.values(), ids=FAILING.keys())
def test_a_policy_that_fails_has_no_figures(
    plan: Callable[[Any], Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stock, "plan", lambda _self, view: plan(view))
    with pytest.raises(ConfigError, match=f"The policy 'vllm' {sentence}"):
        run("vllm", make_traffic(20), replicas=2, steps=True)


def test_a_policy_that_fails_once_in_a_run_that_ends_early_has_no_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, calls = Stock.plan, itertools.count()

    def plan(self: Stock, view: Any) -> StepPlan:
        if next(calls) == 3:
            raise KeyError("on purpose")
        return original(self, view)

    monkeypatch.setattr(Stock, "plan", plan)
    wanted = Simulation(
        profile=make_profile(),
        engine=EngineSpec(scheduler="vllm"),
        trace=make_traffic(20),
        targets=TARGETS,
        forward=False,
    )
    turns = itertools.count()
    with pytest.raises(ConfigError, match=r"failed at 1 of \d+ steps \(KeyError: 'on purpose'\)"):
        simulate(wanted, watch=lambda _book, _entry, _now_ns: next(turns) < 9)


LOSING_TRACK = {
    "a new request": (RequestTable, "add", "tracking a new request"),
    "a step": (TokenTaker, "take", "measuring a step"),
    "a step like the last": (TokenTaker, "again", "measuring a step"),
    "the shape of a step": (Adapter, "shape_of", "recording a scheduled step"),
    "the shape of a step like the last": (Adapter, "coast", "recording a scheduled step"),
    "the end of a request": (RequestTable, "remove", "tracking the end of a request"),
}


@pytest.mark.parametrize(("kind", "method", "doing"), LOSING_TRACK.values(), ids=LOSING_TRACK.keys())
def test_a_run_in_which_we_lost_track_has_no_figures(
    kind: type, method: str, doing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = getattr(kind, method), itertools.count()

    def fails_once(*arguments: Any, **more: Any) -> Any:
        if next(calls) == 2:
            raise KeyError("on purpose")
        return original(*arguments, **more)

    monkeypatch.setattr(kind, method, fails_once)
    sentence = re.escape(
        f"The plugin lost track of the requests ({doing}: KeyError: 'on purpose'); the figures of"
    )
    with pytest.raises(ConfigError, match=sentence) as caught:
        run("vllm", make_traffic(20), replicas=2)
    assert next(calls) > 2
    assert "\n" not in str(caught.value)
