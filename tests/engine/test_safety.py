"""Whatever a policy, a plugin or a request does wrong, the engine serves on."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import RequestRow, StepPlan
from sarathi_plugin.engine import contract
from sarathi_plugin.engine.scheduler import SarathiSyncScheduler
from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.plugins import MAX_FAILURES
from sarathi_plugin.policies.base import Policy
from sarathi_plugin.telemetry import table
from sarathi_plugin.telemetry.tracker import Tracker
from tests.engine.emulator import Engine, Listener, VirtualClock, counted, gauges, linear_time, make_scheduler
from tests.engine.workloads import CLASSES, MS, assert_all_answered, make_script, play

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.vllm

EACH_POLICY = pytest.mark.parametrize(
    "policy",
    [
        "sarathi",
        "sarathi-static",
        "niyama",
        "fair-batching",
        "p-pas",
        "orca",
        "prefill-first",
        "request-level",
        "alternate",
    ],
)
MODES = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
BOOM = RuntimeError("on purpose")


class Offers:
    """A plugin with one policy, ``test``, made of one function."""

    def __init__(self, plan: Callable[[Any], Any], *, whole: bool = False) -> None:
        @dataclass(frozen=True)
        class Test(Policy):
            """A policy of a test."""

            whole_prompts = whole

            def plan(self, view: Any) -> StepPlan:
                return plan(view)

        self._policy = Test

    @hookimpl
    def register_policies(self, register: Callable[..., None]) -> None:
        register("test", self._policy)


def levers(scheduler: Any) -> tuple[Any, ...]:
    return (
        scheduler.max_num_scheduled_tokens,
        scheduler.max_num_active_reqs,
        scheduler.scheduler_config.enable_chunked_prefill,
    )


@pytest.fixture
def serve(config_for: Callable[..., Any]) -> Callable[..., Engine]:
    """``serve(plan)`` plays a script under a policy (a function, or a name) and checks that all is answered."""

    def run(
        plan: Callable[[Any], Any] | str,
        *,
        asynchronous: bool = False,
        count: int = 30,
        whole: bool = False,
        limit: int = 20_000,
        installs: dict[str, object] | None = None,
        **more: Any,
    ) -> Engine:
        config = config_for(budget=512, max_model_len=1024, asynchronous=asynchronous)
        clock = VirtualClock()
        installs = dict(installs or {})
        if not isinstance(plan, str):
            installs["test"] = Offers(plan, whole=whole)
        name = plan if isinstance(plan, str) else "test"
        scheduler = make_scheduler(config, name, clock=clock, installs=installs, **more)
        before = levers(scheduler)
        engine = Engine(scheduler, clock, linear_time(5 * MS, MS // 50), depth=2 if asynchronous else 1)
        play(engine, make_script(1, count, aborts=3, gap_ms=20), limit)
        assert_all_answered(engine)
        assert levers(scheduler) == before
        assert not scheduler.sarathi._table.rows
        return engine

    return run


# -- policies -----------------------------------------------------------------------------------------------------


@MODES
def test_a_policy_that_always_raises_is_switched_off(
    serve: Callable[..., Engine], asynchronous: bool
) -> None:
    def plan(view: Any) -> Any:
        raise BOOM

    messages = serve(plan, asynchronous=asynchronous).drain_messages()

    assert counted(messages)["policy_fallbacks", ()] == MAX_FAILURES
    assert gauges(messages)["policy_enabled", ()] == 0


@MODES
def test_a_policy_that_raises_now_and_then_stays(serve: Callable[..., Engine], asynchronous: bool) -> None:
    def plan(view: Any) -> Any:
        if view.step % 3:
            raise BOOM
        return StepPlan(limit="mine")

    engine = serve(plan, asynchronous=asynchronous)

    counters = counted(engine.drain_messages())
    assert counters["policy_fallbacks", ()] > 2 * MAX_FAILURES
    assert counters["step_budget_limit", ("mine",)] > MAX_FAILURES
    assert ("policy_enabled", ()) not in gauges(engine.drain_messages())


def test_a_step_that_falls_back_is_stock_to_the_last_lever(serve: Callable[..., Engine]) -> None:
    """The plan breaks off half applied: nothing of it may stay."""

    def plan(view: Any) -> Any:
        return StepPlan(
            budget=1, whole_prompts=True, skip_decodes=True, max_running="many" if view.step % 2 else 1
        )

    def stock(view: Any) -> Any:
        return StepPlan()

    stopping, plain = serve(plan), serve(stock)

    assert counted(stopping.drain_messages())["policy_fallbacks", ()] > 0
    assert counted(plain.drain_messages()).get(("policy_fallbacks", ()), 0) == 0


STRANGER = RequestRow("nobody", 7, CLASSES["standard"], 0, 10, 10, 0, 0, 10)
NONSENSE: dict[str, Callable[[Any], Any]] = {
    "no budget": lambda view: StepPlan(budget=0),
    "a negative budget": lambda view: StepPlan(budget=-100),
    "half a token": lambda view: StepPlan(budget=10.5),
    "endless budget": lambda view: StepPlan(budget=10**12),
    "an infinite budget": lambda view: StepPlan(budget=float("inf")),
    "no number": lambda view: StepPlan(budget=float("nan"), max_running=float("nan")),
    "unknown rows": lambda view: StepPlan(prefills=[STRANGER, STRANGER], waiting=[STRANGER]),
    "rows twice": lambda view: StepPlan(prefills=[*view.prefills] * 2, waiting=[*view.waiting] * 2),
    "who runs already": lambda view: StepPlan(waiting=[*view.prefills, *view.waiting]),
    "no rows": lambda view: StepPlan(prefills=[], waiting=[]),
    "things that are no rows": lambda view: StepPlan(prefills=[1], waiting=["x"]),
    "nobody may run": lambda view: StepPlan(max_running=0),
    "fewer than nobody": lambda view: StepPlan(max_running=-5),
    "skip all": lambda view: StepPlan(skip_decodes=True, skip_prefills=True),
    "skip prompts": lambda view: StepPlan(skip_prefills=True),
    "skip decodes": lambda view: StepPlan(skip_decodes=True),
    "skip decodes that are not there": lambda view: StepPlan(skip_some=(0, 10**6)),
    "skip every decode by name": lambda view: StepPlan(skip_some=range(view.decodes)),
    "skip one decode twice": lambda view: StepPlan(skip_some=(0, 0) if view.decodes else ()),
    "hold everything": lambda view: StepPlan(
        budget=0, skip_decodes=True, skip_prefills=True, max_running=0, whole_prompts=True
    ),
    "whole prompts in one token": lambda view: StepPlan(budget=1, whole_prompts=True),
    "no plan": lambda view: None,
    "another thing": lambda view: "plan",
}


@MODES
@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_never_stalls_the_engine(
    serve: Callable[..., Engine], asynchronous: bool, what: str
) -> None:
    engine = serve(NONSENSE[what], asynchronous=asynchronous, count=12, limit=60_000)

    for step in engine.trace.steps:
        assert all(isinstance(count, int) and count > 0 for count in step.tokens.values())


@MODES
def test_a_policy_that_holds_everything_back_loses_few_turns(
    serve: Callable[..., Engine], asynchronous: bool
) -> None:
    engine = serve(NONSENSE["skip all"], asynchronous=asynchronous)

    # One empty turn before each step; running ahead, one more, planned while that step executes.
    assert engine.trace.empty <= engine.depth * len(engine.trace.steps) + 10


def test_whole_prompts_that_fit_in_no_step_are_split_rather_than_never_served(
    serve: Callable[..., Engine],
) -> None:
    """The configuration refuses this; should it come about all the same, serving goes first."""
    engine = serve("orca")

    longest = max(request.num_prompt_tokens for request in engine.submitted.values())
    assert longest > 512 == engine.scheduler.max_num_scheduled_tokens


@EACH_POLICY
def test_a_policy_keeps_its_hands_off_what_it_was_not_given(
    serve: Callable[..., Engine], policy: str
) -> None:
    counters = counted(serve(policy).drain_messages())

    assert ("policy_fallbacks", ()) not in counters
    assert not any(name == "plugin_errors" for name, _ in counters)


# -- observers ----------------------------------------------------------------------------------------------------


class Broken:
    """Fails at everything."""

    @hookimpl
    def engine_started(self, info: Any) -> None:
        del info

    @hookimpl
    def observe_step(self, record: Any, tokens: Any) -> None:
        raise BOOM

    @hookimpl
    def request_finished(self, timeline: Any, outcome: Any) -> None:
        raise BOOM

    @hookimpl
    def engine_stopping(self) -> None:
        raise BOOM


def test_an_observer_that_raises_is_alone_in_it(serve: Callable[..., Engine]) -> None:
    listener = Listener()

    engine = serve("sarathi", observer=listener, installs={"broken": Broken()})

    assert len(listener.steps) == len(engine.trace.decisions)
    assert set(listener.timelines) == set(engine.submitted)
    counters = counted(engine.drain_messages())
    assert counters["plugin_errors", ("broken",)] == MAX_FAILURES
    assert sum(n for (name, _), n in counters.items() if name == "requests_finished") == len(engine.submitted)
    engine.scheduler.shutdown()


def test_the_engine_outlives_its_own_tracker(
    serve: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, record: Any) -> None:
        raise BOOM

    monkeypatch.setattr(Tracker, "_observe_engine", fail)
    listener = Listener()

    engine = serve("sarathi", observer=listener)

    messages = engine.drain_messages()
    assert counted(messages)["plugin_errors", ("sarathi-tracker",)] == MAX_FAILURES
    gauges = [gauge for message in messages for gauge in message["g"]]
    assert ["plugin_enabled", ["sarathi-tracker"], 0] in gauges
    assert set(listener.timelines) == set(engine.submitted)


@pytest.mark.parametrize("method", ["advance", "add", "remove", "timeline"])
def test_the_engine_outlives_its_table(
    serve: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Tokens are delivered even when none of them can be measured."""

    def fail(self: Any, *args: Any, **kwargs: Any) -> None:
        if method == "remove":
            self.rows.pop(args[0], None)
        raise BOOM

    monkeypatch.setattr(table.RequestTable, method, fail)
    engine = serve("sarathi")
    assert counted(engine.drain_messages())["plugin_errors", ("sarathi",)] > 0


# -- requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["gold", "", 5, 1.5, True, ["standard"], {"a": 1}], ids=repr)
def test_an_unknown_class_gets_the_default_and_is_counted(config_for: Callable[..., Any], value: Any) -> None:
    clock, listener = VirtualClock(), Listener()
    config = config_for(budget=512, max_model_len=1024)
    scheduler = make_scheduler(config, "sarathi", clock=clock, observer=listener, default_class="batch")
    engine = Engine(scheduler, clock, linear_time(5 * MS, MS // 50))
    engine.submit(clock.ns, 20, 5, slo_class=value)
    engine.submit(clock.ns, 20, 5, slo_class=None)
    engine.submit(clock.ns, 20, 5, slo_class="interactive")
    engine.run()

    assert [listener.timelines[f"r{i}"].slo_class for i in (1, 2, 3)] == ["batch", "batch", "interactive"]
    counters = counted(engine.drain_messages())
    assert counters["unknown_slo_class", ()] == 1
    assert counters["requests_finished", ("batch", "finished")] == 2


@MODES
@EACH_POLICY
def test_requests_beyond_the_table_are_served_unmeasured(
    serve: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, policy: str, asynchronous: bool
) -> None:
    monkeypatch.setattr(table, "ROWS", 2)

    engine = serve(policy, asynchronous=asynchronous)

    counters = counted(engine.drain_messages())
    measured = sum(n for (name, _), n in counters.items() if name == "requests_finished")
    assert counters["untracked_requests", ()] == len(engine.submitted) - measured
    assert 2 <= measured < len(engine.submitted)
    assert ("policy_fallbacks", ()) not in counters
    assert not any(name == "plugin_errors" for name, _ in counters)


def test_names_may_be_used_again_at_once(config_for: Callable[..., Any]) -> None:
    """Both leave and come back between two steps: the same names yield tokens at each, from other rows of the table."""
    clock, listener = VirtualClock(), Listener()
    scheduler = make_scheduler(
        config_for(budget=512, max_model_len=1024), "sarathi", clock=clock, observer=listener
    )
    engine = Engine(scheduler, clock, linear_time(5 * MS, MS // 50))
    names = ["a", "b"]
    for name in names:
        engine.submit(clock.ns, 20, 50, name)
    for _ in range(10):
        engine.step()
    for name in names:
        engine.abort(name)
    engine.submit(clock.ns, 20, 5, "a")
    engine.submit(clock.ns, 20, 9, "b")

    trace = engine.run()

    for name in names:
        assert listener.timelines[name].token_ns == tuple(trace.tokens[name])
    assert [len(trace.tokens[name]) for name in names] == [5, 9]


def test_shutdown_ends_everybody(config_for: Callable[..., Any]) -> None:
    """vLLM finishes all requests at once with None."""
    from vllm.v1.request import RequestStatus

    clock, listener = VirtualClock(), Listener()
    scheduler = make_scheduler(
        config_for(budget=512, max_model_len=1024), "sarathi", clock=clock, observer=listener
    )
    engine = Engine(scheduler, clock, linear_time(5 * MS, MS // 50))
    for _ in range(5):
        engine.submit(clock.ns, 200, 50)
    for _ in range(6):
        engine.step()

    scheduler.finish_requests(None, RequestStatus.FINISHED_ABORTED)

    assert {t.status for t in listener.timelines.values()} == {"aborted"}
    assert len(listener.timelines) == 5
    assert not scheduler.sarathi._table.rows


# -- vLLM itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", contract.REQUIRED)
def test_a_missing_attribute_is_named_with_the_version(config_for: Callable[..., Any], name: str) -> None:
    scheduler = make_scheduler(config_for(budget=512, max_model_len=1024), None)
    attributes = {key: getattr(scheduler, key) for key in contract.REQUIRED if key != name}

    with pytest.raises(ConfigError, match=rf"^vLLM 0\.31\.9 has no scheduler attribute '{name}'.*\.$"):
        contract.check_scheduler(SimpleNamespace(**attributes), "0.31.9")


def test_a_missing_block_pool_is_named() -> None:
    attributes = dict.fromkeys(contract.REQUIRED)

    with pytest.raises(ConfigError, match=r"vLLM 0\.31\.9 has no kv_cache_manager\.block_pool"):
        contract.check_scheduler(SimpleNamespace(**attributes), "0.31.9")


def test_the_contract_is_checked_when_a_scheduler_is_built(
    config_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "REQUIRED", (*contract.REQUIRED, "gone_in_this_version"))

    with pytest.raises(ConfigError, match="gone_in_this_version"):
        make_scheduler(config_for(budget=512, max_model_len=1024), "sarathi")


@pytest.mark.parametrize("version", ["0.29.3", "0.34.0", "1.0.0", "0.2"])
def test_an_unsupported_vllm_is_refused(
    config_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(contract, "vllm_version", lambda: version)

    with pytest.raises(ConfigError, match=rf"vLLM {version} is not supported \(supported: 0\.30 to 0\.33\)"):
        make_scheduler(config_for(budget=512, max_model_len=1024), "sarathi")


@pytest.mark.parametrize("version", ["0.30.0", "0.32.0+cpu", "0.33.1.dev5+g123", "0.0.0", "dev"])
def test_a_supported_or_unknown_vllm_passes(version: str) -> None:
    contract.check_version(version)


def test_without_the_optional_gate_the_other_one_is_used(
    config_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM 0.30 gates admission by max_num_running_reqs alone and asserts on it: never below the running ones."""
    gate = property(lambda self: self.max_num_running_reqs, lambda self, value: None)
    monkeypatch.setattr(SarathiSyncScheduler, "max_num_active_reqs", gate, raising=False)
    clock = VirtualClock()
    scheduler = make_scheduler(config_for(budget=512, max_model_len=1024), "request-level", clock=clock)
    scheduler.sarathi._adapter._gate = "max_num_running_reqs"
    engine = Engine(scheduler, clock, linear_time(5 * MS, MS // 50))

    play(engine, make_script(1, 20, gap_ms=20, prompt=(1, 300)))

    assert_all_answered(engine)
    assert scheduler.max_num_running_reqs == 256
    assert {step.kind for step in engine.trace.steps} == {"decode", "prefill"}
