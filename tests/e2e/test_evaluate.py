"""``sarathi evaluate`` on real servers: two arms up together, runs stored with the engine's own steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.evaluate.experiments import settings, write

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.timeout(600)
def test_two_arms_live(tmp_path: Path):
    case = settings()["workloads"][0] | {"loads": [2.0], "requests": 20, "warm_up": 2}
    path = write(
        tmp_path,
        mode="live",
        workloads=[case],
        engine={"max_model_len": 4096, "max_num_seqs": 32, "enable_prefix_caching": False},
        live={"env": {"VLLM_CPU_KVCACHE_SPACE": "1"}},
    )
    out = tmp_path / "out"
    argv = [sys.executable, "-m", "sarathi_plugin.cli", "evaluate", str(path), "--out", str(out)]
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
