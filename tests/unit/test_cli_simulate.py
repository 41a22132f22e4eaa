"""Commands round the simulator: bad input is one sentence on stderr and exit code 2."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sarathi_plugin import cli
from sarathi_plugin.policies.orca import Orca
from sarathi_plugin.steptime.profile import shipped_profiles
from sarathi_plugin.telemetry import parquet


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs ``sarathi`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.app, list(arguments))


def is_refused(result: Result, sentence: str) -> None:
    assert result.stderr == f"{sentence}\n"
    assert result.exit_code == 2


FIT = ("profile", "fit")
RECORD = ("profile", "record", "a-model", "--out")
BAD = {
    "recording that is not there": (
        (*FIT, "none.jsonl.gz"),
        "Cannot read the recording none.jsonl.gz: No such file or directory.",
    ),
    "recording that is a folder": ((*FIT, "folder"), "Cannot read the recording folder: Is a directory."),
    "recording that is none": (
        (*FIT, "text.jsonl.gz"),
        "text.jsonl.gz is not a recording: give a file of --sarathi-record.",
    ),
    "second recording that is not there": (
        (*FIT, "empty.jsonl.gz", "none.jsonl.gz"),
        "Cannot read the recording none.jsonl.gz: No such file or directory.",
    ),
    "recording without a head": (
        (*FIT, "empty.jsonl.gz"),
        "A recording has no head: it is empty, or not whole; leave that file out, or record it again.",
    ),
    "curve that cannot be written, before anything is measured": (
        ("profile", "prefill", "http://127.0.0.1:1", "--out", "text.jsonl.gz/curve.json"),
        "Cannot write text.jsonl.gz/curve.json: Not a directory; choose another --out.",
    ),
    "recording under a wrong name": (
        (*RECORD, "grid.json"),
        "Name the recording *.jsonl.gz, not 'grid.json'.",
    ),
    "recording packed otherwise": (
        (*RECORD, "folder/grid.jsonl"),
        "Name the recording *.jsonl.gz, not 'grid.jsonl'.",
    ),
    "recording that is there already": (
        (*RECORD, "text.jsonl.gz"),
        "text.jsonl.gz exists; remove it or choose another --out.",
    ),
}


@pytest.mark.parametrize(("arguments", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_2(
    run: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], sentence: str
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.jsonl.gz").write_text("text")
    (tmp_path / "empty.jsonl.gz").write_bytes(gzip.compress(b""))
    before = sorted(tmp_path.rglob("*"))
    is_refused(run(*arguments), sentence)
    assert sorted(tmp_path.rglob("*")) == before


USAGE = {
    "fit nothing": FIT,
    "no stream": (*RECORD, "a.jsonl.gz", "--streams", "0"),
    "hardly any budget": (*RECORD, "a.jsonl.gz", "--budget", "63"),
    "hardly any context": (*RECORD, "a.jsonl.gz", "--context", "63"),
    "traffic of the past": (*RECORD, "a.jsonl.gz", "--traffic", "-1"),
    "no replica": ("simulate", "chat", "--replicas", "0"),
    "no request": ("simulate", "chat", "--requests", "0"),
    "no worker": ("simulate", "chat", "--workers", "0"),
    "replay nothing": ("replay",),
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE.keys())
def test_bad_usage_is_2(run: Callable[..., Result], arguments: tuple[str, ...]):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


WITHOUT_VLLM = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "vllm"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from sarathi_plugin.cli import main
sys.argv = ["sarathi", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("arguments", [("simulate", "sharegpt-like"), ("replay", "run.jsonl.gz")])
def test_without_vllm_a_simulation_says_what_is_missing(tmp_path: Path, arguments: tuple[str, ...]):
    recording = tmp_path / "run.jsonl.gz"
    recording.write_bytes(gzip.compress(b""))
    argv = [sys.executable, "-c", WITHOUT_VLLM, *arguments]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr in {
        f"This needs {name}: pip install 'sarathi-plugin[simulate,vllm]'.\n" for name in ("torch", "vllm")
    }
    assert list(tmp_path.iterdir()) == [recording]


KNOWN = ", ".join(shipped_profiles())
CHATS = ("simulate", "sharegpt-like", "--rate", "1", "--requests", "5")
SIMULATE = {
    "results into a file": (
        (*CHATS, "--out", "/dev/null"),
        "Cannot write /dev/null: File exists; choose another --out.",
    ),
    "results into nowhere": (
        (*CHATS, "--out", "/proc/none"),
        "Cannot write /proc/none: No such file or directory; choose another --out.",
    ),
    "sweep of no YAML": (
        (*CHATS, "--sweep", "sarathi.slo=["),
        "--sweep sarathi.slo=[: '[' is not valid YAML; values are single ones, parted by commas.",
    ),
    "sweep of a mapping": (
        (*CHATS, "--sweep", "sarathi={tbt_ms: 1, slo: gap}"),
        "--sweep sarathi={tbt_ms: 1, slo: gap}: '{tbt_ms: 1' is not valid YAML; values are single ones, parted by "
        "commas.",
    ),
    "value that is there twice": (
        (*CHATS, "--sweep", "max_num_seqs=64,32,64"),
        "--sweep max_num_seqs=64,32,64: 64 is there twice.",
    ),
    "key that is swept twice": (
        (*CHATS, "--sweep", "max_num_seqs=64", "--sweep", "max_num_seqs=32"),
        "max_num_seqs is swept twice: give all of its values in one --sweep.",
    ),
    "last scheduler unknown": (
        (*CHATS, "--sweep", "scheduler=stock,orka"),
        "Unknown scheduler 'orka'; known: orca",
    ),
    "stock misspelt": (
        (*CHATS, "--sweep", "scheduler=stok"),
        "Unknown scheduler 'stok'; known: stock, ",
    ),
    "too few blocks": (
        (*CHATS, "--sweep", "num_gpu_blocks_override=2"),
        "num_gpu_blocks_override: 2 blocks of 16 tokens cannot hold one request of 8192 tokens, which needs 512; raise "
        "it or lower max_model_len.",
    ),
    "unknown router": ((*CHATS, "--router", "random"), "Unknown router 'random'; known: "),
    "unknown profile": (
        ("simulate", "chat", "--profile", "b200"),
        f"No step-time profile 'b200': give a file or one of {KNOWN}.",
    ),
    "recording to replay that is not there": (
        ("replay", "none.jsonl.gz"),
        "Cannot read the recording none.jsonl.gz: No such file or directory.",
    ),
}


@pytest.mark.vllm
@pytest.mark.parametrize(("arguments", "sentence"), SIMULATE.values(), ids=SIMULATE.keys())
def test_bad_input_of_a_simulation_is_one_sentence_and_2(
    run: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], sentence: str
):
    result = run(*arguments)
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.vllm
def test_a_variant_that_fails_takes_nothing_from_the_others(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Orca, "plan", lambda _self, _view: 1 / 0)
    result = run(*CHATS, "--sweep", "scheduler=orca,stock", "--workers", "1")
    assert [line.split()[0] for line in result.stdout.splitlines()[-2:]] == ["fluid", "scheduler=stock"]
    assert "/2 scheduler=orca: failed\n" in result.stdout
    assert result.stderr.startswith("scheduler=orca: The policy 'orca' failed at 3 of ")
    assert result.exit_code == 2
    assert {path.name for path in (tmp_path / "sarathi-simulation").iterdir()} == {"01"}


@pytest.mark.vllm
def test_what_cannot_be_kept_is_still_told(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parquet, "write_timelines", full)
    result = run(*CHATS, "--sweep", "scheduler=stock,orca", "--workers", "1")
    table = result.stdout.splitlines()[-3:]
    assert table[0].split()[:3] == ["fluid", "TTFT", "P50"]
    assert [line.split()[0] for line in table[1:]] == ["scheduler=stock", "scheduler=orca"]
    assert result.stderr == (
        "Cannot write sarathi-simulation/00: No space left on device; choose another --out.\n"
    )
    assert result.exit_code == 2
    assert {path.name for path in (tmp_path / "sarathi-simulation").iterdir()} == {"00", "01"}
