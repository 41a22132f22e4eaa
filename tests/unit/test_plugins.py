"""How plugins are found, refused and kept apart: each mistake is one sentence, and none reaches the engine."""

from __future__ import annotations

import logging
import types
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from sarathi_plugin import plugins
from sarathi_plugin.config import ConfigError, Settings, SloClassSettings
from sarathi_plugin.core import SloClass, StepPlan
from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.plugins import MAX_FAILURES, Observers
from sarathi_plugin.policies.base import Policy
from sarathi_plugin.steptime.online import OnlineModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.core import StepView

OURS = {
    "sarathi", "sarathi-static", "vllm", "niyama", "fair-batching", "p-pas", "orca", "prefill-first", "request-level",
    "alternate",
}  # fmt: skip


@dataclass(frozen=True)
class Third(Policy):
    """A policy from elsewhere."""

    depth: int = 1

    def plan(self, view: StepView) -> StepPlan:
        del view
        return StepPlan(budget=self.depth)


class EntryPoint:
    """What ``importlib.metadata`` gives; counts how often it is loaded."""

    def __init__(self, name: str, load: Callable[[], object], package: str = "somebodys") -> None:
        self.name = name
        self.value = f"{package}_plugin"
        self.dist = SimpleNamespace(name=package)
        self.loads = 0
        self._load = load

    def load(self) -> object:
        self.loads += 1
        return self._load()


def plugin(**hooks: Callable[..., Any]) -> object:
    """A module with these functions as hooks."""
    module = types.ModuleType("somebodys_plugin")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


def offering(hook: str, name: str, thing: object) -> object:
    """A plugin that offers one thing."""

    def offer(register: Callable[[str, object], None]) -> None:
        register(name, thing)

    return plugin(**{hook: offer})


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, EntryPoint]]:
    """``install(name=plugin)``: as if packages with these entry points were installed, and no others."""

    def fake(**things: object) -> dict[str, EntryPoint]:
        points = {
            name: EntryPoint(name, thing if isinstance(thing, types.FunctionType) else lambda t=thing: t)
            for name, thing in things.items()
        }
        monkeypatch.setattr(plugins, "find_entry_points", lambda: dict(points))
        return points

    fake()
    return fake


def refused(action: Callable[[], object]) -> str:
    """The sentence with which something is refused."""
    with pytest.raises(ConfigError) as caught:
        action()
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def build(*names: str) -> Any:
    return plugins.build_plugin_manager(names)


# -- found and refused -------------------------------------------------------------------------------------------


def test_what_is_not_installed_is_named_with_what_to_do(install: Any):
    install()
    sentence = refused(lambda: build("nowhere"))
    assert sentence == (
        "No plugin 'nowhere' is installed; install a package with an entry point 'nowhere' in the group "
        "'sarathi_plugin'."
    )


def test_a_misspelt_name_is_met_with_the_nearest(install: Any):
    install(recorder=plugin())
    assert "did you mean 'recorder'?" in refused(lambda: build("recordr"))


def test_a_plugin_that_fails_to_import_is_named_with_its_error(install: Any):
    def load() -> object:
        raise ModuleNotFoundError("No module named 'torchvision'")

    install(broken=load)
    assert refused(lambda: build("broken")) == (
        "The plugin 'broken' failed to import: ModuleNotFoundError: No module named 'torchvision'; fix or remove it."
    )


def test_a_misspelt_hook_is_refused(install: Any):
    install(typo=plugin(observe_stepp=lambda record: None))
    sentence = refused(lambda: build("typo"))
    assert sentence.startswith("The plugin 'typo' does not fit: ")
    assert "observe_stepp" in sentence


def test_a_hook_with_a_wrong_argument_is_refused(install: Any):
    install(wrong=plugin(observe_step=lambda record, token: None))
    sentence = refused(lambda: build("wrong"))
    assert sentence.startswith("The plugin 'wrong' does not fit: ")
    assert "token" in sentence
    assert "observe_step" in sentence


def test_a_hook_may_take_fewer_arguments(install: Any):
    install(modest=plugin(observe_step=lambda tokens: None, request_finished=lambda: None))
    assert build("modest").has_plugin("modest")


def test_a_name_that_ours_has_is_refused(install: Any):
    install(third=offering("register_policies", "sarathi", Third))
    manager = build("third")
    assert refused(lambda: plugins.known_policies(manager)) == (
        "The plugin 'third' offers 'sarathi', which 'sarathi-policies' already does; rename one."
    )


def test_a_name_that_two_plugins_offer_is_refused(install: Any):
    install(a=offering("register_policies", "fair", Third), b=offering("register_policies", "fair", Third))
    assert "'fair'" in refused(lambda: plugins.known_policies(build("a", "b")))


def test_a_plugin_that_raises_while_it_offers_is_named(install: Any):
    def offer(register: Callable[[str, object], None]) -> None:
        raise RuntimeError("no licence")

    install(third=plugin(register_policies=offer))
    manager = build("third")
    sentence = refused(lambda: plugins.known_policies(manager))
    assert sentence == "The plugin 'third' failed in register_policies: RuntimeError: no licence."


def test_a_plugin_named_twice_is_loaded_once(install: Any):
    points = install(third=plugin())
    assert build("third", "third").has_plugin("third")
    assert points["third"].loads == 1


def test_entry_points_are_those_of_our_group_and_not_yet_imported(monkeypatch: pytest.MonkeyPatch):
    groups: list[str] = []
    point = EntryPoint("third", plugin)

    def entry_points(*, group: str) -> list[EntryPoint]:
        groups.append(group)
        return [point]

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    assert plugins.find_entry_points() == {"third": point}
    assert groups == ["sarathi_plugin"]
    assert point.loads == 0


@pytest.fixture
def disputed(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Two packages with a plugin ``third`` each, and a third package with one of another name."""
    fair, fairest = (offering("register_policies", name, Third) for name in ("fair", "fairest"))
    points = [
        EntryPoint("third", lambda: fair, "theirs"),
        EntryPoint("third", lambda: fair, "others"),
        EntryPoint("fourth", lambda: fairest),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: points)
    return points


TWO_NAMED_THIRD = (
    "The packages 'theirs' and 'others' each have a plugin named 'third'; uninstall the one not meant."
)


def test_a_plugin_that_two_packages_have_is_refused_naming_both(disputed: list[EntryPoint]):
    assert refused(lambda: build("third")) == TWO_NAMED_THIRD
    assert [point.loads for point in disputed] == [0, 0, 0]


def test_a_plugin_that_two_packages_have_is_in_nobodys_way(disputed: list[EntryPoint]):
    assert plugins.manager_for(Settings(scheduler="fairest")).has_plugin("fourth")
    assert build("fourth").has_plugin("fourth")
    assert TWO_NAMED_THIRD in refused(lambda: plugins.manager_for(Settings(scheduler="fair")))
    assert [point.loads for point in disputed] == [0, 0, 3]


def test_one_plugin_that_two_packages_name_alike_is_no_dispute(monkeypatch: pytest.MonkeyPatch):
    same = [EntryPoint("third", plugin), EntryPoint("third", plugin)]
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: same)
    assert build("third").has_plugin("third")


# -- policies by name --------------------------------------------------------------------------------------------


def test_ours_are_there_without_any_plugin(install: Any):
    install()
    assert set(plugins.known_policies()) == OURS


def test_installing_activates_nothing(install: Any):
    seen: list[object] = []
    points = install(
        third=plugin(
            observe_step=lambda record: seen.append(record),  # noqa: PLW0108 - a hook is checked by its arguments' names
            register_policies=lambda register: register("fair", Third),
        )
    )
    manager = plugins.manager_for(Settings())
    assert points["third"].loads == 0
    assert not manager.has_plugin("third")
    assert "fair" not in plugins.known_policies(manager)
    Observers(manager, seen.append).call("observe_step", record=1, tokens=2)
    assert not seen


def test_a_policy_of_an_installed_plugin_is_found_by_its_name(install: Any):
    install(other=plugin(), third=offering("register_policies", "fair", Third))
    settings = Settings(scheduler="fair", policy={"depth": 7})
    manager = plugins.manager_for(settings)
    assert plugins.make_policy(settings, manager) == Third(depth=7)
    assert not manager.has_plugin("other")


def test_a_policy_is_found_behind_a_plugin_that_is_broken(install: Any):
    def load() -> object:
        raise ImportError("gone")

    install(broken=load, third=offering("register_policies", "fair", Third))
    assert plugins.manager_for(Settings(scheduler="fair")).has_plugin("third")


def test_plugins_that_were_asked_for_stay_when_the_policy_comes_from_another(install: Any):
    install(watch=plugin(observe_step=lambda: None), third=offering("register_policies", "fair", Third))
    manager = plugins.manager_for(Settings(scheduler="fair", plugins=["watch"]))
    assert manager.has_plugin("watch")
    assert manager.has_plugin("third")


def test_a_policy_that_two_installed_plugins_offer_is_refused_naming_both(install: Any):
    third = offering("register_policies", "fair", Third)
    install(a=third, b=offering("register_policies", "fair", Third), other=plugin())
    assert refused(lambda: plugins.manager_for(Settings(scheduler="fair"))) == (
        "The plugins 'a' and 'b' offer the same policy 'fair'; list the one that is meant under plugins, or remove the "
        "others."
    )


@pytest.mark.parametrize("meant", ["a", "b"])
def test_a_listed_plugin_goes_before_one_that_is_merely_installed(install: Any, meant: str):
    install(a=offering("register_policies", "fair", Third), b=offering("register_policies", "fair", Third))
    manager = plugins.manager_for(Settings(scheduler="fair", plugins=[meant]))
    assert [manager.has_plugin(name) for name in "ab"] == [meant == "a", meant == "b"]


def test_an_unknown_policy_is_met_with_those_of_installed_plugins_too(install: Any):
    install(a=offering("register_policies", "fair", Third), b=offering("register_policies", "fairest", Third))
    sentence = refused(lambda: plugins.manager_for(Settings(scheduler="fairer")))
    assert sentence.startswith("Unknown scheduler 'fairer'; known: fair, fairest, ")


def test_an_unknown_policy_is_met_with_the_known_ones_nearest_first(install: Any):
    install()
    sentence = refused(lambda: plugins.manager_for(Settings(scheduler="sarati")))
    assert sentence.startswith("Unknown scheduler 'sarati'; known: sarathi, ")
    assert all(name in sentence for name in OURS)


def test_an_unknown_policy_says_which_plugin_could_not_be_asked(install: Any):
    def load() -> object:
        raise ImportError("gone")

    install(broken=load)
    sentence = refused(lambda: plugins.manager_for(Settings(scheduler="fair")))
    assert "The plugin 'broken' failed to import: ImportError: gone" in sentence


# -- step-time models and SLO classes ----------------------------------------------------------------------------


def test_the_step_time_model_is_looked_up_by_name(install: Any):
    install()
    manager = build()
    assert isinstance(plugins.make_step_time_model(Settings(), manager), OnlineModel)
    sentence = refused(lambda: plugins.make_step_time_model(Settings(step_time="onlin"), manager))
    assert sentence == "Unknown step-time model 'onlin'; known: online."


def test_a_step_time_model_of_a_plugin_is_made_by_calling_it(install: Any):
    made = OnlineModel()
    install(third=offering("register_step_time_models", "mine", lambda: made))
    settings = Settings(step_time="mine", plugins=["third"])
    assert plugins.make_step_time_model(settings, plugins.manager_for(settings)) is made


def test_flags_change_the_default_class_alone(install: Any):
    install()
    settings = Settings(tbt_ms=33.5, ttft_slack_ms=250)
    classes = plugins.make_slo_classes(settings, build())
    assert classes["standard"] == SloClass("standard", 33_500_000, 250_000_000)
    assert classes["interactive"].tbt_ns == 50_000_000
    assert set(classes) == {"interactive", "standard", "batch"}


def test_a_flag_keeps_the_rest_of_the_default_class(install: Any):
    install()
    classes = plugins.make_slo_classes(Settings(default_class="batch", tbt_ms=10), build())
    assert classes["batch"] == SloClass("batch", 10_000_000, 60_000_000_000, 600_000_000_000, 0.5)


def test_the_file_redefines_classes_of_plugins_and_ours(install: Any):
    install(third=offering("register_slo_classes", "gold", SloClass("gold", 1, 2)))
    spec = SloClassSettings(tbt_ms=5, ttft_slack_ms=6)
    settings = Settings(plugins=["third"], classes={"gold": spec, "interactive": spec})
    classes = plugins.make_slo_classes(settings, plugins.manager_for(settings))
    assert classes["gold"] == SloClass("gold", 5_000_000, 6_000_000)
    assert classes["interactive"] == SloClass("interactive", 5_000_000, 6_000_000)


def test_a_class_of_a_plugin_can_be_the_default(install: Any):
    install(third=offering("register_slo_classes", "gold", SloClass("gold", 1, 2)))
    settings = Settings(plugins=["third"], default_class="gold", tbt_ms=3)
    classes = plugins.make_slo_classes(settings, plugins.manager_for(settings))
    assert classes["gold"] == SloClass("gold", 3_000_000, 2)


def test_an_undefined_default_class_is_refused(install: Any):
    install()
    sentence = refused(lambda: plugins.make_slo_classes(Settings(default_class="standart"), build()))
    assert sentence == "The default class 'standart' is not defined; known: standard, interactive, batch."


# -- observers ---------------------------------------------------------------------------------------------------


class Watcher:
    """An observer that fails when told to."""

    def __init__(self, *failing: str) -> None:
        self.failing = set(failing)
        self.calls: list[str] = []

    def _note(self, hook: str) -> None:
        self.calls.append(hook)
        if hook in self.failing:
            raise ZeroDivisionError(hook)

    @hookimpl
    def engine_started(self) -> None:
        self._note("engine_started")

    @hookimpl
    def observe_step(self) -> None:
        self._note("observe_step")

    @hookimpl
    def request_finished(self) -> None:
        self._note("request_finished")


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> Callable[..., tuple[Observers, list[str]]]:
    """``watch(a=watcher, b=watcher)``: (observers, the names of those that failed)."""
    caplog.set_level(logging.ERROR)

    def make(**watchers: Watcher) -> tuple[Observers, list[str]]:
        manager = build()
        for name, watcher in watchers.items():
            plugins.register_plugin(manager, watcher, name)
        errors: list[str] = []
        return Observers(manager, errors.append), errors

    return make


def step(observers: Observers) -> None:
    observers.call("observe_step", record=None, tokens=None)


def finish(observers: Observers) -> None:
    observers.call("request_finished", timeline=None, outcome=None)


@pytest.mark.parametrize("order", [("good", "bad"), ("bad", "good")])
def test_one_failing_observer_does_not_silence_the_other(watch: Any, order: tuple[str, str]):
    watchers = {"good": Watcher(), "bad": Watcher("observe_step")}
    observers, errors = watch(**{name: watchers[name] for name in order})
    for _ in range(MAX_FAILURES + 2):
        step(observers)
    assert len(watchers["good"].calls) == MAX_FAILURES + 2
    assert errors == ["bad"] * MAX_FAILURES


def test_an_observer_is_switched_off_after_so_many_failures_in_a_row(
    watch: Any, caplog: pytest.LogCaptureFixture
):
    bad = Watcher("observe_step")
    observers, errors = watch(bad=bad)
    off: list[str] = []
    observers._on_off = off.append
    for _ in range(MAX_FAILURES):
        assert observers.listening("observe_step")
        assert not off
        step(observers)
    assert off == ["bad"]
    assert not observers.listening("observe_step")
    assert not observers.listening("request_finished")
    step(observers)
    finish(observers)
    assert bad.calls == ["observe_step"] * MAX_FAILURES
    assert len(errors) == MAX_FAILURES
    assert [record.getMessage() for record in caplog.records] == [
        "The plugin 'bad' failed in observe_step; the engine goes on.",
        "The plugin 'bad' is switched off after 3 failures in a row.",
    ]


def test_a_success_starts_the_count_again(watch: Any, caplog: pytest.LogCaptureFixture):
    bad = Watcher()
    observers, errors = watch(bad=bad)
    for _ in range(4):
        bad.failing = {"observe_step"}
        for _ in range(MAX_FAILURES - 1):
            step(observers)
        bad.failing = set()
        step(observers)
    assert observers.listening("observe_step")
    assert len(errors) == 4 * (MAX_FAILURES - 1)
    assert len(caplog.records) == 1  # told once, not at every failure


def test_a_hook_that_always_fails_is_not_hidden_by_one_that_works(watch: Any):
    bad = Watcher("request_finished")
    observers, errors = watch(bad=bad)
    for _ in range(MAX_FAILURES + 1):
        step(observers)
        finish(observers)
    assert bad.calls.count("request_finished") == MAX_FAILURES
    assert errors == ["bad"] * MAX_FAILURES


def test_a_failure_at_the_start_switches_off_at_once(watch: Any):
    bad, good = Watcher("engine_started"), Watcher()
    observers, errors = watch(bad=bad, good=good)
    observers.call("engine_started", info=None)
    step(observers)
    assert bad.calls == ["engine_started"]
    assert good.calls == ["engine_started", "observe_step"]
    assert errors == ["bad"]


def test_nobody_listens_to_a_hook_that_nobody_has(watch: Any):
    observers, errors = watch(good=Watcher())
    assert not observers.listening("engine_stopping")
    observers.call("engine_stopping")
    observers.call("no_such_hook")
    assert not errors


def test_an_observer_gets_the_arguments_it_names_in_its_own_order(install: Any):
    seen: list[object] = []
    install(third=plugin(observe_step=lambda tokens, record: seen.append((tokens, record))))
    observers = Observers(build("third"), seen.append)
    observers.call("observe_step", record="record", tokens="tokens")
    assert seen == [("tokens", "record")]
