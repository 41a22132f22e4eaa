"""How plugins are found, checked and kept apart from each other."""

from __future__ import annotations

import difflib
import logging
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NoReturn

import pluggy

from sarathi_plugin import hookspecs
from sarathi_plugin.config import BUILTIN_CLASSES, ConfigError, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.metadata import EntryPoint

    from sarathi_plugin.core import SloClass, StepTimeModel
    from sarathi_plugin.policies.base import Policy

logger = logging.getLogger(__name__)

ENTRY_POINTS = hookspecs.PROJECT
MAX_FAILURES = 3
"""Failures in a row after which a policy or plugin is switched off."""

TRACKER, RECORDER, LIVE = "sarathi-tracker", "sarathi-recorder", "sarathi-live"
"""Names of our own observers."""


def builtin_plugins() -> list[tuple[str, Any]]:
    """Our own features, which come in by the same door as everybody else's."""
    from sarathi_plugin import policies, steptime

    return [("sarathi-policies", policies), ("sarathi-steptime", steptime)]


def find_entry_points() -> dict[str, Any]:
    """Installed third-party plugins by name, not yet imported.

    A name that packages give to different things is there as ``Disputed``, which says so only to who asks for it.
    """
    found: dict[str, Any] = {}
    for point in entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, {})[point.value] = point
    return {
        name: next(iter(points.values())) if len(points) == 1 else Disputed(list(points.values()))
        for name, points in found.items()
    }


class Disputed:
    """In place of the entry points of several packages that share a name: nobody knows which is meant."""

    def __init__(self, points: Sequence[EntryPoint]) -> None:
        self._name = points[0].name
        self._owners = [repr(point.dist.name if point.dist else point.value) for point in points]

    def load(self) -> NoReturn:
        """Raises ConfigError."""
        owners = " and ".join(self._owners)
        raise ConfigError(
            f"The packages {owners} each have a plugin named {self._name!r}; uninstall the one not meant."
        )


def build_plugin_manager(names: Iterable[str] = ()) -> pluggy.PluginManager:
    """A manager with our own plugins and the named third-party ones, every hook checked.

    Raises ConfigError when a plugin is not installed or shares its name with one of another package, fails to import,
    implements an unknown hook, or has a hook with wrong arguments.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name, plugin in builtin_plugins():
        manager.register(plugin, name)
    known = find_entry_points()
    for name in names:
        if manager.has_plugin(name):
            continue
        if name not in known:
            raise ConfigError(
                f"No plugin {name!r} is installed; {did_you_mean(name, known)}"
                f"install a package with an entry point {name!r} in the group {ENTRY_POINTS!r}."
            )
        try:
            plugin = known[name].load()
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"The plugin {name!r} failed to import: {type(error).__name__}: {error}; fix or remove it."
            ) from error
        register_plugin(manager, plugin, name)
    return manager


def register_plugin(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Add one plugin, hook names and arguments checked at once. Raises ConfigError."""
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"The plugin {name!r} does not fit: {text}.") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint with the nearest known names, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(repr(c) for c in close)}? Otherwise " if close else ""


def collect(manager: pluggy.PluginManager, hook: str) -> dict[str, Any]:
    """Everything the plugins offer through one ``register_*`` hook, by name. Raises ConfigError on a taken name."""
    found: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for impl in getattr(manager.hook, hook).get_hookimpls():

        def register(name: str, thing: Any, /, *, plugin: str = impl.plugin_name) -> None:
            if name in found:
                raise ConfigError(
                    f"The plugin {plugin!r} offers {name!r}, which {owner[name]!r} already does; rename one."
                )
            found[name] = thing
            owner[name] = plugin

        try:
            impl.function(register)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"The plugin {impl.plugin_name!r} failed in {hook}: {type(error).__name__}: {error}."
            ) from error
    return found


def known_policies(manager: pluggy.PluginManager | None = None) -> dict[str, type[Policy]]:
    """Policies by name. Without a manager: ours and those of every installed plugin that can be imported."""
    if manager is None:
        manager = build_plugin_manager()
    return collect(manager, "register_policies")


def manager_for(settings: Settings, also: Iterable[str] = ()) -> pluggy.PluginManager:
    """The manager for these settings; looks the policy up in installed plugins when it is not ours.

    A plugin listed in the settings goes before one that is merely installed. All installed ones are asked, each beside
    those listed, only if the policy is of neither us nor them. Raises ConfigError, also when two of them offer it.
    also: names that are no policies, but may be given in the same place; they are named with the known ones.
    """
    manager = build_plugin_manager(settings.plugins)
    known = set(collect(manager, "register_policies"))
    if settings.scheduler in known:
        return manager
    problems = []
    offering: dict[str, pluggy.PluginManager] = {}
    for name in find_entry_points():
        try:
            candidate = build_plugin_manager([*settings.plugins, name])
            offered = collect(candidate, "register_policies")
        except ConfigError as error:
            problems.append(str(error))
            continue
        known |= offered.keys()
        if settings.scheduler in offered:
            offering[name] = candidate
    if len(offering) > 1:
        names = " and ".join(map(repr, offering))
        raise ConfigError(
            f"The plugins {names} offer the same policy {settings.scheduler!r}; list the one that is meant under "
            "plugins, or remove the others."
        )
    for candidate in offering.values():
        return candidate
    nearest = ", ".join(order_by_nearness(settings.scheduler, {*known, *also}))
    hint = f" Also: {' '.join(problems)}" if problems else ""
    raise ConfigError(f"Unknown scheduler {settings.scheduler!r}; known: {nearest}.{hint}")


def order_by_nearness(name: str, known: Iterable[str]) -> list[str]:
    """Known names, the most similar first."""
    return sorted(known, key=lambda k: (-difflib.SequenceMatcher(None, name, k).ratio(), k))


def make_policy(settings: Settings, manager: pluggy.PluginManager) -> Policy:
    """The policy the settings name, with its own settings. Raises ConfigError."""
    cls: type[Policy] = collect(manager, "register_policies")[settings.scheduler]
    return cls.from_settings(settings)


def make_step_time_model(settings: Settings, manager: pluggy.PluginManager) -> StepTimeModel:
    """The step-time model the settings name. Raises ConfigError."""
    models = collect(manager, "register_step_time_models")
    if settings.step_time not in models:
        names = ", ".join(order_by_nearness(settings.step_time, models))
        raise ConfigError(f"Unknown step-time model {settings.step_time!r}; known: {names}.")
    model: StepTimeModel = models[settings.step_time]()
    return model


def make_slo_classes(settings: Settings, manager: pluggy.PluginManager) -> dict[str, SloClass]:
    """All SLO classes by name, flags applied to the default one. Raises ConfigError."""
    classes = {name: spec.build(name) for name, spec in BUILTIN_CLASSES.items()}
    classes |= collect(manager, "register_slo_classes")
    specs = dict(settings.classes)
    default = settings.default_class
    if default not in classes and default not in specs:
        names = ", ".join(order_by_nearness(default, [*classes, *specs]))
        raise ConfigError(f"The default class {default!r} is not defined; known: {names}.")
    classes |= {name: spec.build(name) for name, spec in specs.items()}
    base = classes[default]
    tbt_ns = base.tbt_ns if settings.tbt_ms is None else round(settings.tbt_ms * 1e6)
    slack_ns = base.ttft_slack_ns if settings.ttft_slack_ms is None else round(settings.ttft_slack_ms * 1e6)
    classes[default] = type(base)(default, tbt_ns, slack_ns, base.completion_ns, base.importance)
    return classes


def observer_names(settings: Settings, *, live: bool) -> list[str]:
    """Names under which failures of this server's parts are counted: our own, then the plugins asked for.

    live: whether the live page was asked for.
    """
    recorder = [RECORDER] if settings.record else []
    return ["sarathi", TRACKER, *recorder, *([LIVE] if live else []), *settings.plugins]


class Observers:
    """Calls one hook on every plugin that has it, each with its own guard and failure count.

    pluggy stops at the first plugin that raises; here one broken observer neither silences the others nor reaches
    the engine. Failures are counted per plugin and hook, so that one that always fails is not hidden by another that
    works; at MAX_FAILURES the whole plugin goes. on_error gets the plugin's name at every failure, on_off when it is
    switched off.
    """

    def __init__(
        self,
        manager: pluggy.PluginManager,
        on_error: Callable[[str], None],
        on_off: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._on_error = on_error
        self._on_off = on_off
        self._failures: dict[tuple[str, str], int] = {}
        self._off: set[str] = set()
        self._complained: set[tuple[str, str]] = set()
        self._impls = {
            hook: [(impl.plugin_name, impl.function, impl.argnames) for impl in caller.get_hookimpls()]
            for hook, caller in vars(manager.hook).items()
            if isinstance(caller, pluggy.HookCaller)
        }

    def listening(self, hook: str) -> bool:
        """Whether anybody still implements this hook."""
        return any(name not in self._off for name, _, _ in self._impls.get(hook, ()))

    def call(self, hook: str, **arguments: Any) -> None:
        """Call one hook everywhere; never raises."""
        for name, function, argnames in self._impls.get(hook, ()):
            if name in self._off:
                continue
            try:
                function(*[arguments[arg] for arg in argnames])
            except Exception:
                self._failed(name, hook)
            else:
                self._failures.pop((name, hook), None)

    def _failed(self, name: str, hook: str) -> None:
        count = self._failures[name, hook] = self._failures.get((name, hook), 0) + 1
        self._on_error(name)
        if (name, hook) not in self._complained:
            self._complained.add((name, hook))
            logger.exception("The plugin %r failed in %s; the engine goes on.", name, hook)
        if count >= MAX_FAILURES or hook == "engine_started":
            self._off.add(name)
            self._on_off(name)
            logger.error("The plugin %r is switched off after %d failures in a row.", name, count)
