"""``sarathi capacity`` and ``sarathi search``: bad input is one sentence on stderr and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sarathi_plugin import cli
from sarathi_plugin.search.capacity_command import Task, Wanted, schedulers_of
from sarathi_plugin.search.criteria import Fluid
from sarathi_plugin.search.promise import Promise
from sarathi_plugin.steptime.profile import shipped_profiles
from sarathi_plugin.workload.spec import WorkloadSpec


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs ``sarathi`` in a folder with a few files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slo.yaml").write_text("tbt: 3\n")
    (tmp_path / "engine.yaml").write_text("scheduler: sarathi\n")
    (tmp_path / "server.yaml").write_text("model: some-model\nport: 8000\n")
    (tmp_path / "twice.yaml").write_text("model: some-model\nargs: [--scheduler, orca]\n")
    (tmp_path / "space.yaml").write_text("workload: sharegpt-like\nspace: {profile: [cpu-fast-model]}\n")
    (tmp_path / "core.yaml").write_text(
        "workload: sharegpt-like\nspace: {profile: [cpu-fast-model]}\nserve: {model: m, client_cores: [4096]}\n"
    )
    (tmp_path / "contrary.yaml").write_text(
        "workload: {kind: sharegpt-like, rate: 1}\nrate: 2\nspace: {profile: [cpu-fast-model]}\n"
    )
    return lambda *arguments: CliRunner().invoke(cli.app, list(arguments))


KNOWN = ", ".join(shipped_profiles())
URL = "http://127.0.0.1:1"
CRITERIA = "fluid, sarathi, deadline, tbt_ttft, ttft_tpot"
BAD = {
    "unknown profile": (
        ("capacity", "b200"),
        f"No step-time profile 'b200': give a file or one of {KNOWN}. A running server is given as http://HOST:PORT.",
    ),
    "unknown criterion": (
        ("capacity", "--criterion", "smooth"),
        f"No criterion 'smooth': use one of {CRITERIA}.",
    ),
    "criterion without its limit": (
        ("capacity", "--criterion", "sarathi"),
        "criterion sarathi: sarathi.tbt_s: this key is missing.",
    ),
    "server that is not there": (
        ("capacity", URL),
        f"No vLLM server answers at {URL} (ConnectionError).",
    ),
    "no server's address": (
        ("capacity", "ftp://127.0.0.1"),
        "Give the server's address as http://HOST:PORT, not 'ftp://127.0.0.1'.",
    ),
    "scheduler of a running server": (
        ("capacity", URL, "--scheduler", "stock"),
        "A running server has the scheduler it was started with; leave --scheduler out, or give a server file.",
    ),
    "replicas of a running server": (
        ("capacity", URL, "--replicas", "2"),
        "--replicas is for simulated machines; leave it out, or give a step-time profile.",
    ),
    "engine of a server": (
        ("capacity", "server.yaml", "--engine", "engine.yaml"),
        "--engine is for simulated machines; leave it out, or give a step-time profile.",
    ),
    "server file with an unknown key": (
        ("capacity", "server.yaml"),
        "server.yaml: port: this key is not known; use one of args, env, model, start_timeout_s.",
    ),
    "server file that is not there": (
        ("capacity", "none.yaml"),
        "Cannot read none.yaml: No such file or directory.",
    ),
    "two schedulers": (
        ("capacity", "twice.yaml", "--scheduler", "sarathi"),
        "twice.yaml names a scheduler already; leave --scheduler out.",
    ),
    "promise with an unknown key": (
        ("capacity", "--slo", "slo.yaml"),
        "slo.yaml: tbt: this key is not known; the nearest is tbt_ms.",
    ),
    "start beyond all": (("capacity", "--start", "inf"), "Rates are above zero: --start inf is not."),
    "no resolution": (
        ("capacity", "--resolution", "nan"),
        "A capacity search needs at least one repeat and a resolution above zero.",
    ),
    "no scheduler named": (
        ("capacity", "--scheduler", " ,"),
        "Name at least one scheduler after --scheduler, or leave it out.",
    ),
    "answer into a folder": (
        ("capacity", "--out", "."),
        "Cannot write .: Is a directory; choose another --out.",
    ),
    "answer into nowhere": (
        ("capacity", "--out", "none/answer.json"),
        "Cannot write none/answer.json: No such file or directory; choose another --out.",
    ),
    "start at nothing": (("capacity", "--start", "0"), "Rates are above zero: --start 0 is not."),
    "unknown workload": (
        ("capacity", "--workload", "chat"),
        "No workload 'chat': give the path of a workload file or one of sharegpt-like, arxiv-like, azure-conv-like, "
        "mixed-classes, agentic, chat-sessions, long-context, spiky.",
    ),
    "search file that is not there": (
        ("search", "none.yaml"),
        "Cannot read none.yaml: No such file or directory.",
    ),
    "contradictory search": (
        ("search", "contrary.yaml"),
        "contrary.yaml: the workload says rate 1 and the search 2; keep one of them.",
    ),
}


@pytest.mark.parametrize(("arguments", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_2(
    run: Callable[..., Result], arguments: tuple[str, ...], sentence: str
):
    result = run(*arguments)
    assert result.stderr == f"{sentence}\n"
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_scheduler_named_twice_is_tried_once():
    def asked(names: str | None, engine: str = "") -> list[str | None]:
        settings = {"scheduler": engine} if engine else {}
        wanted = Wanted(where="", workload="", schedulers=names)
        return list(
            schedulers_of(
                Task(
                    wanted=wanted,
                    workload=WorkloadSpec(kind="spiky"),
                    criterion=Fluid(),
                    promise=Promise(),
                    settings=settings,
                )
            )
        )

    assert asked("orca, sarathi,orca,") == ["orca", "sarathi"]
    assert asked(None) == ["sarathi"]
    assert asked(None, "orca") == [None]


SIMULATED = {
    "unknown scheduler": (("capacity", "--scheduler", "fifo"), "Unknown scheduler 'fifo'; known: "),
    "replicas for nonsense": (
        ("capacity", "--replicas-for", "many"),
        "Give --replicas-for as requests per second or as trace, not 'many'.",
    ),
    "replicas for nothing": (
        ("capacity", "--replicas-for", "0"),
        "--replicas-for needs a rate above zero, not 0.",
    ),
    "unknown router": (("capacity", "--router", "random"), "Unknown router 'random'; known: "),
    "results into a file": (
        ("search", "space.yaml", "--out", "slo.yaml"),
        "Cannot write slo.yaml: File exists; choose another --out.",
    ),
    "nothing to verify": (
        ("search", "space.yaml", "--verify"),
        "--verify needs a model to serve: name it under serve: in the file.",
    ),
    "a core that is not there": (
        ("search", "core.yaml", "--verify"),
        "client_cores: this process may not use core 4096; name others.",
    ),
}


@pytest.mark.vllm
@pytest.mark.parametrize(("arguments", "sentence"), SIMULATED.values(), ids=SIMULATED.keys())
def test_bad_input_of_a_simulation_is_one_sentence_and_2(
    run: Callable[..., Result], arguments: tuple[str, ...], sentence: str
):
    result = run(*arguments)
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    assert result.exit_code == 2
