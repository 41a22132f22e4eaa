"""An experiment that is interrupted, however, goes on where it was: nothing twice, only runs in progress lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sarathi_plugin.steptime.profile import save_profile
from tests.engine.simulations import NOISE, make_profile
from tests.unit.evaluate.experiments import heed_interrupts, settings, write

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

CASE = settings()["workloads"][0] | {
    "prompt_scale": 0.2,
    "output_scale": 0.1,
    "requests": 150,
    "loads": [8.0, 16.0],
}
RUNS = 2 * 2 * 30
WORKERS = 2


def start(path: Path, out: Path) -> subprocess.Popen[str]:
    argv = [
        sys.executable,
        "-m",
        "sarathi_plugin.cli",
        "evaluate",
        str(path),
        "--out",
        str(out),
        "--workers",
        str(WORKERS),
    ]
    return subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509  (no thread of ours is about)
    )


def finished(out: Path) -> dict[str, int]:
    """Finished runs, and when each was written."""
    return {p.parent.name: p.stat().st_mtime_ns for p in out.glob("runs/[!.]*/run.json")}


def children(group: int) -> list[str]:
    """Processes of a group that are still there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.timeout(900)
def test_interrupted_at_ten_random_points(tmp_path: Path):
    rng = random.Random(7)
    save_profile(make_profile(noise=NOISE), tmp_path / "machine.json")
    path = write(
        tmp_path, profile=str(tmp_path / "machine.json"), prefill_curve="a100-llama-3-8b", workloads=[CASE],
        engine={"max_model_len": 4096, "max_num_seqs": 64}, seeds=list(range(30)),
    )  # fmt: skip
    out = tmp_path / "out"
    signals = [signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT] * 2
    for sig in signals:
        before = finished(out)
        process = start(path, out)
        wait_for(process, out, len(before) + rng.randrange(1, 6), rng.uniform(0, 0.4))
        if sig == signal.SIGINT:
            os.killpg(process.pid, sig)  # as a terminal does
        else:
            process.send_signal(sig)
        text = process.communicate(timeout=60)[0]
        assert process.returncode in {130, 128 + sig, -sig}, text
        if sig != signal.SIGKILL:
            assert "the same command goes on from there" in text
            assert "Traceback" not in text
        gone_by = time.monotonic() + 20
        while children(process.pid) and time.monotonic() < gone_by:
            time.sleep(0.1)
        assert children(process.pid) == []
        after = finished(out)
        assert before.items() <= after.items(), "a finished run was done again"
        assert len(after) > len(before)
        assert len(list(out.glob("runs/.part-*"))) <= WORKERS
    before = finished(out)
    process = start(path, out)
    text = process.communicate(timeout=300)[0]
    assert process.returncode == 0, text
    assert f"{RUNS} runs, {len(before)} done" in text
    assert before.items() <= finished(out).items()
    assert len(finished(out)) == RUNS
    assert not list(out.glob("runs/.part-*"))


def wait_for(process: subprocess.Popen[str], out: Path, runs: int, more_s: float) -> None:
    """Until so many runs are finished, and a moment longer."""
    end = time.monotonic() + 120
    while len(finished(out)) < runs and time.monotonic() < end:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    time.sleep(more_s)
