"""``sarathi capacity`` on real servers: one that runs, or one started for the search and stopped after it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from sarathi_plugin.config import ConfigError, Strict, explain, load_yaml
from sarathi_plugin.load.server import ServerSpec, serve
from sarathi_plugin.search.attempts import Answer, Failed, attempt
from sarathi_plugin.search.capacity_command import result_of, schedulers_of
from sarathi_plugin.search.figures import etalon_of, figures_of
from sarathi_plugin.search.live import LiveJudge, endpoint_of
from sarathi_plugin.search.promise import check_classes
from sarathi_plugin.search.repeats import in_sequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.search.capacity import Capacity, Verdict
    from sarathi_plugin.search.capacity_command import Task
    from sarathi_plugin.search.repeats import Repeated

START = 1.0
"""Requests per second that a search begins with where nothing is known of the server."""


class ServerFile(Strict):
    """A server to start: ``vllm serve MODEL ARGS``."""

    model: str = Field(description="As in vllm serve MODEL: a name or a folder.")
    args: list[str] = Field(default_factory=list, description="More arguments of vllm serve.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables on top of ours.")
    start_timeout_s: float = Field(default=300, gt=0, description="Longest wait until it answers, seconds.")

    def spec(self, log: Path, more: tuple[str, ...] = ()) -> ServerSpec:
        """How to start it."""
        return ServerSpec(self.model, "judged", log, (*self.args, *more), self.env, self.start_timeout_s)


def read_server(path: str) -> ServerFile:
    """A server file. Raises ConfigError."""
    try:
        return ServerFile.model_validate(load_yaml(path))
    except ValidationError as error:
        raise ConfigError(explain(error, path, ServerFile)) from error


def running(task: Task, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Capacity of the server at a URL. Raises ConfigError, ServerError."""
    return measure(task, task.wanted.where, task.wanted.where, say=say)


def started(task: Task, *, say: Callable[[str], None], more: tuple[str, ...] = ()) -> list[Answer]:
    """Capacity of a server with each of the schedulers, started one after another; more: arguments of all.

    Raises ConfigError for a bad file.
    """
    server = read_server(task.wanted.where)
    names = [name or "" for name in schedulers_of(task)] if task.wanted.schedulers else [""]
    if "--scheduler" in server.args and any(_flags(name) for name in names):
        raise ConfigError(f"{task.wanted.where} names a scheduler already; leave --scheduler out.")

    def measured(name: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="sarathi-capacity-") as folder:
            say(f"starting {server.model} {' '.join(_flags(name))}".rstrip())
            with serve(server.spec(Path(folder) / "server.log", (*_flags(name), *more))) as up:
                return measure(task, name or server.model, up.url, say=say)

    answers: list[Answer] = []
    for name in names:
        answer = attempt((measured, name))
        answers.append(answer if isinstance(answer, dict) else Failed(name or server.model, answer))
    return answers


def _flags(name: str) -> tuple[str, ...]:
    """How a server is told its scheduler."""
    return () if name in ("", "stock") else ("--scheduler", name)


def measure(task: Task, label: str, url: str, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Capacity of one server that answers. Raises ConfigError, ServerError."""
    repeated, figures = measure_server(task, url, start=task.wanted.start or START, say=say)
    return result_of(label, repeated, figures)


def measure_server(
    task: Task, url: str, *, start: float, say: Callable[[str], None]
) -> tuple[Repeated, dict[str, Any]]:
    """Capacities by seed, and the figures of the last run that passed at the highest rate of the first seed."""
    endpoint, length = endpoint_of(url)
    targets = task.promise.targets()

    def trace_at(rate: float | None, seed: int) -> Any:
        return task.workload.trace(rate, task.requests, seed)

    check_classes(trace_at(start, task.wanted.seed), targets)
    judge = LiveJudge(endpoint, length, targets, trace_at, task.criterion)
    judge.warm_up(start)

    def told(rate: float, seed: int) -> Verdict:
        verdict = judge(rate, seed)
        say(f"seed {seed}: {rate:.3g} requests/s {'passed' if verdict.passed else verdict.reason}")
        return verdict

    def note(seed: int, capacity: Capacity) -> None:
        say(f"seed {seed}: capacity {capacity.text}")

    repeated = in_sequence(told, task.seeds, start=start, resolution=task.wanted.resolution, note=note)
    passed = [key for key in judge.timelines if key[1] == task.seeds[0]]
    if not passed:
        return repeated, {}
    timelines = judge.timelines[max(passed)]
    return repeated, figures_of(timelines) | etalon_of(timelines)
