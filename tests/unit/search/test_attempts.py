"""Servers started one after another: one that fails takes nothing from what the others gave."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sarathi_plugin import cli
from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.server import ServerError, ServerSpec
from sarathi_plugin.search import live_capacity
from sarathi_plugin.search.attempts import attempt
from sarathi_plugin.simulate.sweep import sweep


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs ``sarathi capacity`` on servers that start under every scheduler but orca and niyama."""

    @contextlib.contextmanager
    def serve(spec: ServerSpec) -> Iterator[Any]:
        if {"orca", "niyama"} & set(spec.args):
            raise ServerError(f"The server did not start with {spec.args[-1]}.")
        yield SimpleNamespace(url="http://nowhere")

    def measure(_task: Any, label: str, _url: str, **_: Any) -> dict[str, Any]:
        return {"label": label}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(live_capacity, "serve", serve)
    monkeypatch.setattr(live_capacity, "measure", measure)
    monkeypatch.setattr("sarathi_plugin.search.capacity_command.capacity_lines", lambda one: [one["label"]])
    (tmp_path / "server.yaml").write_text("model: some-model\n")
    return lambda names: CliRunner().invoke(cli.app, ["capacity", "server.yaml", "--scheduler", names])


def test_a_server_that_fails_is_named_after_the_answer_about_the_others(run: Callable[..., Result]):
    result = run("stock,orca,sarathi,niyama")
    assert result.stdout == "stock\nsarathi\n"
    assert result.stderr.splitlines()[-2:] == [
        "orca: The server did not start with orca.",
        "niyama: The server did not start with niyama.",
    ]
    assert result.exit_code == 1


def test_when_all_fail_there_is_no_answer(run: Callable[..., Result]):
    result = run("orca")
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == "The server did not start with orca."
    assert result.exit_code == 1


def test_a_bad_file_is_told_before_any_server_starts(run: Callable[..., Result]):
    Path("server.yaml").write_text("model: some-model\nargs: [--scheduler, orca]\n")
    result = run("stock,sarathi")
    assert result.stderr == "server.yaml names a scheduler already; leave --scheduler out.\n"
    assert result.exit_code == 2


def positive(number: int) -> int:
    if number < 0:
        raise ConfigError(f"{number} is below zero.")
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_that_fails_does_not_end_those_beside_it(workers: int):
    jobs = [(positive, number) for number in (1, -2, 3)]
    found = {number: result for (_, number), result in sweep(attempt, jobs, workers=workers)}
    assert (found[1], found[3]) == (1, 3)
    assert isinstance(found[-2], ConfigError)
    assert str(found[-2]) == "-2 is below zero."
