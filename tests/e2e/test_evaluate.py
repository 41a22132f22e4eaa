"""``sarathi evaluate`` on real servers: two arms up together, runs stored with the engine's own steps."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evaluate.experiments import heed_interrupts, settings, write

pytestmark = [pytest.mark.server, pytest.mark.slow]


def live(folder: Path, requests: int, **env: str) -> Path:
    """A small live experiment of two arms and two seeds, as a file."""
    case = settings()["workloads"][0] | {"loads": [2.0], "requests": requests, "warm_up": 2}
    return write(
        folder,
        mode="live",
        workloads=[case],
        engine={"max_model_len": 4096, "max_num_seqs": 32, "enable_prefix_caching": False},
        live={"env": {"VLLM_CPU_KVCACHE_SPACE": "1"} | env},
    )


def command(path: Path, out: Path) -> list[str]:
    """The command line of an evaluation."""
    return [sys.executable, "-m", "sarathi_plugin.cli", "evaluate", str(path), "--out", str(out)]


@pytest.mark.timeout(600)
def test_two_arms_live(tmp_path: Path):
    out = tmp_path / "out"
    argv = command(live(tmp_path, 20), out)
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(out.glob("runs/*/timelines.parquet"))) == 4
    for folder in out.glob("runs/*-ours"):
        facts = json.loads((folder / "run.json").read_text())
        assert facts["figures"]["tokens_per_s"] > 0
        assert (folder / "steps.parquet").is_file()
        assert (folder / "server-timelines.parquet").is_file()
    environment = json.loads(next(out.glob("environment-*.json")).read_text())
    assert environment["packages"]["vllm"].startswith("0.")
    text = (out / "report.md").read_text()
    assert "Scheduling delay is not known of stock" in text
    assert "| ours |" in text
    again = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert "4 runs, 4 done" in again.stdout
    assert "starting" not in again.stdout


def servers(mark: str) -> list[str]:
    """Processes with this in their environment: servers of an experiment, and all that those started."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in environ.read_bytes():
                found.append(environ.parent.name)
        except OSError:
            continue
    return found


def wait_for(what: Any, seconds: float) -> None:
    """Until it is true. Fails when it does not get true in time."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.timeout(1200)
def test_ended_whenever_and_however_it_leaves_no_server(tmp_path: Path):
    mark = tmp_path.as_posix()
    out = tmp_path / "out"
    argv = command(live(tmp_path, 10, SARATHI_TEST=mark), out)

    def finished() -> dict[str, int]:
        return {p.parent.name: p.stat().st_mtime_ns for p in out.glob("runs/[!.]*/run.json")}

    # When: as soon as a server starts, and in a run.
    ends = [(signal.SIGKILL, 0), (signal.SIGTERM, 0), (signal.SIGHUP, 1), (signal.SIGINT, 1)]
    for sig, runs in [*ends, (signal.SIGTERM, 2), (signal.SIGKILL, 2)]:
        before = finished()
        with subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=heed_interrupts,  # noqa: PLW1509  (no thread of ours is about)
        ) as process:
            wait_for(lambda: servers(mark) and len(finished()) >= runs, 300)  # noqa: B023  (called here)
            time.sleep(1)
            process.send_signal(sig)
            text = process.communicate(timeout=90)[0]
        assert process.returncode in {130, 128 + sig, -sig}, text
        assert "Traceback" not in text
        assert ("the same command goes on from there" in text) == (sig != signal.SIGKILL)
        if sig != signal.SIGKILL:
            assert servers(mark) == []
        wait_for(lambda: not servers(mark), 60)
        assert before.items() <= finished().items(), "a finished run was done again"
    before = finished()
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"4 runs, {len(before)} done" in done.stdout
    assert before.items() <= finished().items()
    assert len(finished()) == 4
    assert servers(mark) == []
