"""``sarathi serve`` and the entry point: what is loaded, what is added to the command line, what is left alone."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.engine import page, serve

INSTALLED = {
    "vllm.general_plugins": ["lora_filesystem_resolver", "lora_hf_hub_resolver", "sarathi", "theirs"],
    "vllm.platform_plugins": ["npu"],
    "vllm.io_processor_plugins": [],
    "vllm.stat_logger_plugins": ["statsd"],
    "vllm.endpoint_plugins": ["sarathi-page", "their-routes"],
}


def installed(group: str) -> list[EntryPoint]:
    return [EntryPoint(name, "module:thing", group) for name in INSTALLED[group]]


def test_all_that_would_have_loaded_loads_and_ours():
    found = serve.allow_list(None, installed).split(",")
    assert found == ["lora_filesystem_resolver", "sarathi", "theirs", "npu", "statsd", "sarathi-page"]


def test_what_loads_only_when_named_stays_out():
    found = serve.allow_list(None, installed).split(",")
    assert "their-routes" not in found  # routes need a name
    assert "lora_hf_hub_resolver" not in found  # being named allows it to download


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a,b", "a,b,sarathi,sarathi-page"),
        ("", "sarathi,sarathi-page"),
        ("sarathi-page", "sarathi-page,sarathi"),
    ],
)
def test_a_list_of_the_users_own_is_kept(given: str, expected: str):
    assert serve.allow_list(given, installed) == expected


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "vllm_command", lambda: "/bin/vllm")


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([], ["--scheduler", "sarathi", "--host", "127.0.0.1"]),
        (["--scheduler", "niyama"], ["--host", "127.0.0.1"]),
        (["--scheduler=niyama", "--host=0.0.0.0"], []),
        (["--scheduler_cls", "x.Y", "--uds", "socket"], []),
        (["--hostile", "1"], ["--scheduler", "sarathi", "--host", "127.0.0.1"]),
    ],
)
def test_our_scheduler_and_loopback_where_nothing_was_said(given: list[str], added: list[str]):
    assert serve.command(["M", *given]) == ["/bin/vllm", "serve", "M", *given, *added]


@pytest.mark.usefixtures("vllm")
def test_vllms_own_configuration_file_counts(tmp_path: Path):
    file = tmp_path / "vllm.yaml"
    file.write_text("scheduler: niyama\nport: 5\n")
    assert serve.command(["M", "--config", str(file)])[5:] == ["--host", "127.0.0.1"]
    file.write_text("host: localhost\n")
    assert serve.command(["M", f"--config={file}"])[4:] == ["--scheduler", "sarathi"]
    with pytest.raises(ConfigError, match="Cannot read"):
        serve.command(["M", "--config", str(tmp_path / "no")])
    with pytest.raises(ConfigError, match="needs a file"):
        serve.command(["M", "--config"])


@pytest.mark.usefixtures("vllm")
def test_it_becomes_vllm_with_the_list_set(monkeypatch: pytest.MonkeyPatch):
    ran = []
    monkeypatch.setattr(serve.os, "execve", lambda *arguments: ran.append(arguments))
    monkeypatch.setenv("VLLM_PLUGINS", "theirs")
    monkeypatch.setenv("OTHER", "kept")
    serve.serve(["M"])
    ((program, argv, env),) = ran
    assert (program, argv[:3]) == ("/bin/vllm", ["/bin/vllm", "serve", "M"])
    assert env["VLLM_PLUGINS"] == "theirs,sarathi,sarathi-page"
    assert env["OTHER"] == "kept"


def test_without_plotly_it_does_not_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sarathi_plugin.telemetry.page.assets.library_path", lambda: None)
    with pytest.raises(ConfigError, match=r"sarathi-plugin\[page\]"):
        serve.serve(["M"])


def test_the_command_takes_any_flag_of_vllm(tmp_path: Path):
    (tmp_path / "vllm").write_text('#!/bin/sh\necho "$VLLM_PLUGINS" "$@"\n')
    (tmp_path / "vllm").chmod(0o755)
    code = (
        "import sys; from sarathi_plugin.engine import serve; from sarathi_plugin.cli import app; "
        "program = sys.argv.pop(1); serve.vllm_command = lambda: program; app()"
    )
    given = ["serve", "M", "--port", "5", "-tp", "2"]
    argv = [sys.executable, "-c", code, str(tmp_path / "vllm"), *given]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, _, rest = done.stdout.partition(" ")
    assert "sarathi-page" in names.split(",")
    assert rest.split() == [*given, "--scheduler", "sarathi", "--host", "127.0.0.1"]


# -- the entry point ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(None, False), ("", False), ("sarathi", False), ("a,sarathi-page", True), ("sarathi-pages", False)],
)
def test_the_page_is_opt_in(monkeypatch: pytest.MonkeyPatch, value: str | None, wanted: bool):
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    if value is not None:
        monkeypatch.setenv("VLLM_PLUGINS", value)
    assert page.page_wanted() is wanted


@pytest.mark.parametrize(
    ("given", "environment", "keys"),
    [(None, None, []), (None, "e", ["e"]), (["a", "b"], "e", ["a", "b"]), ([""], "e", []), ([], "e", ["e"])],
)
def test_keys_are_those_that_vllm_takes(
    monkeypatch: pytest.MonkeyPatch, given: list[str] | None, environment: str | None, keys: list[str]
):
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    if environment:
        monkeypatch.setenv("VLLM_API_KEY", environment)
    assert page.api_keys(SimpleNamespace(api_key=given)) == keys


def test_the_access_log_leaves_out_only_what_viewers_ask_for_every_second():
    def line(path: str, status: int) -> bool:
        return page.quiet(
            logging.LogRecord(
                "uvicorn.access", 20, "", 0, "%s %s %s %s %d", ("a", "GET", path, "1.1", status), None
            )
        )

    assert not line("/sarathi/api?slo_class=x", 200)
    assert line("/sarathi/api", 401)
    assert line("/sarathi", 200)
    assert line("/v1/completions", 200)
    assert page.quiet(logging.LogRecord("uvicorn.access", 20, "", 0, "text", None, None))
