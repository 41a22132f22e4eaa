"""Every extension point of the plugin, typed. A plugin is a module or object with some of these functions.

Rules: installing a plugin activates nothing; a policy or model acts when it is named in the settings, an observer when
it is listed under ``plugins`` (or ``--sarathi-plugin``). Hooks run at most once per step, never per token. A hook that
raises is counted (``sarathi_plugin_errors_total``) and, after ``plugins.MAX_FAILURES`` failures in a row, switched off;
the engine goes on.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.core import SloClass, StepTimeModel
    from sarathi_plugin.policies.base import Policy
    from sarathi_plugin.records import RequestTimeline, StepRecord
    from sarathi_plugin.telemetry.emission import TokenBatch
    from sarathi_plugin.telemetry.table import Outcome

PROJECT = "sarathi_plugin"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """Handed to the ``register_*`` hooks; raises ConfigError when the name is taken."""

    def __call__(self, name: str, thing: Any, /) -> None:
        """Offer ``thing`` under ``name``."""


class EngineInfo(Protocol):
    """What an observer learns of the engine it watches. ``plugin_settings`` are by plugin name."""

    model_name: str
    engine_index: int
    policy: str
    slo_classes: tuple[str, ...]
    curve_digest: str
    plugin_settings: dict[str, dict[str, Any]]


@hookspec
def register_policies(register: Callable[[str, type[Policy]], None]) -> None:
    """Offer scheduling policies: ``register("my-policy", MyPolicy)``, a frozen dataclass with ``plan(view)``.

    Process: API server (to check names) and engine. Thread: main. Called once at start. Cost: import time only.
    An exception: the server does not start and says which plugin failed.
    """


@hookspec
def register_step_time_models(register: Callable[[str, Callable[[], StepTimeModel]], None]) -> None:
    """Offer step-time models: ``register("my-model", MyModel)``, called without arguments in the engine.

    Process: API server and engine. Thread: main. Called once at start. Cost: import time only. Durations
    are integer nanoseconds. An exception: the server does not start and says which plugin failed.
    """


@hookspec
def register_slo_classes(register: Callable[[str, SloClass], None]) -> None:
    """Offer SLO classes: ``register("gold", SloClass("gold", tbt_ns=..., ttft_slack_ns=...))``.

    Process: API server and engine. Thread: main. Called once at start. Cost: import time only. The YAML file may
    redefine them. An exception: the server does not start and says which plugin failed.
    """


@hookspec
def engine_started(info: EngineInfo) -> None:
    """The engine is about to take its first step.

    Process: engine. Thread: main. Called once. Cost: may open files here, not later. An exception: counted, this
    plugin gets no further call.
    """


@hookspec
def observe_step(record: StepRecord, tokens: TokenBatch) -> None:
    """One step has finished. ``tokens`` holds what it emitted, in columns (one entry per request).

    Steps are handed over in order, a few at a time: up to a quarter of a second after they ended.

    Process: engine. Thread: the engine's own, between steps. Times in nanoseconds. Cost budget: 50 microseconds;
    no blocking I/O. ``tokens`` is only valid during the call. An exception: counted; switched off after repeats.
    """


@hookspec
def request_finished(timeline: RequestTimeline, outcome: Outcome) -> None:
    """One request has ended: finished, aborted or failed. ``outcome`` holds its final counts as the table had them.

    Process: engine. Thread: the engine's own, between steps. Times in nanoseconds. Cost budget: 50 microseconds;
    no blocking I/O. An exception: counted; switched off after repeats.
    """


@hookspec
def engine_stopping() -> None:
    """The engine shuts down: close what ``engine_started`` opened.

    Not called after a crash, nor on SIGTERM where vLLM kills its engine at once, as it does without
    ``--shutdown-timeout``: what must not be lost has to be written as it comes.

    Process: engine. Thread: main. Called at most once. Cost: may block for a second. An exception: logged.
    """


def markdown() -> str:
    """The hooks as a section each, from the specifications above: what docs/hooks.md shows."""
    sections = []
    for name, function in list(globals().items()):
        if hasattr(function, f"{PROJECT}_spec"):
            arguments = ", ".join(inspect.signature(function).parameters)
            sections.append(f"## `{name}({arguments})`\n\n{inspect.getdoc(function)}\n")
    return "\n".join(sections)


if __name__ == "__main__":
    print(markdown())  # noqa: T201 - the generated block of docs/hooks.md
