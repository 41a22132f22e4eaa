import subprocess
import sys
import time

import pytest
import typer
from rich.markup import render
from typer.testing import CliRunner

from sarathi_plugin import cli
from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.server import ServerError

RUNNER = CliRunner()


def run(*arguments):
    return RUNNER.invoke(cli.app, list(arguments))


def test_help_and_version():
    assert "demo" in run("--help").output
    assert "prefill" in run("profile", "--help").output
    assert run("--version").output.startswith("sarathi-plugin ")


def commands(command, path=()):
    """Every command and group below, with the words that call it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


COMMANDS = list(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS], ids=" ".join)
def test_every_command_shows_its_help(path):
    result = run(*path, "--help")
    assert result.exit_code == 0, result.output
    assert "Usage: " in result.output


@pytest.mark.parametrize("command", [command for _, command in COMMANDS], ids=lambda command: command.name)
def test_no_help_holds_what_is_taken_for_markup(command):
    for text in (command.help, *(getattr(parameter, "help", None) for parameter in command.params)):
        assert render(text or "").plain == (text or "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("profile", "prefill", "nonsense"), "http://HOST:PORT"),
        (("profile", "prefill", "http://127.0.0.1:1"), "No vLLM server answers at http://127.0.0.1:1"),
        (
            ("demo", "--out", "/proc/nothing", "--fast"),
            "Cannot write /proc/nothing: No such file or directory; choose ",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_2(arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("demo", "--seed", "-1"), ("demo", "--oops"), ("nothing",)])
def test_bad_usage_is_2(arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("Bad."), 2), (ModuleNotFoundError("x", name="requests"), 2), (ServerError("Down."), 1),
     (KeyboardInterrupt(), 130)],
)  # fmt: skip
def test_failures_have_their_code(error, code):
    def fail():
        raise error

    with pytest.raises(typer.Exit) as exit_info:
        cli.guard(fail, extra="load")
    assert exit_info.value.exit_code == code


def test_bugs_are_not_hidden():
    def fail():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        cli.guard(fail, extra="load")


def test_import_is_quick():
    heavy = "requests, matplotlib, numpy, rich, pydantic, torch, vllm"
    code = f"import sys, sarathi_plugin.cli; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert time.monotonic() - began < 5, "generous: other work runs on test machines"
    assert done.stdout.strip() in ("[]", "['rich']")
