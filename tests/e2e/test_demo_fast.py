"""The whole demo with the tiny model: two real servers, one after the other, under load."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sarathi_plugin.load.timelines import read_timelines

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1200)]


def processes_that_mention(word):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if word.encode() in line and folder.name != str(os.getpid()):
            found.append(folder.name)
    return found


def test_demo_fast(tmp_path):
    out = tmp_path / "out"
    sarathi = Path(sys.executable).parent / "sarathi"
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sarathi, "demo", "--fast", "--out", out],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=1100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("One stream alone", "longest freeze of a stream", "--scheduler sarathi", "timelines.png"):
        assert words in done.stdout
    assert (out / "timelines.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((out / "demo.json").read_text())
    assert [arm["name"] for arm in figures["arms"]] == ["stock", "sarathi"]
    stock, sarathi_arm = (read_timelines(out / f"{arm['name']}.jsonl.gz") for arm in figures["arms"])
    assert {t.curve for t in stock} == {t.curve for t in sarathi_arm}, "both are judged by one curve"
    assert [t.request_id for t in stock] == [t.request_id for t in sarathi_arm]
    assert {t.status for t in stock + sarathi_arm} == {"finished"}
    assert processes_that_mention(str(tmp_path / "cache")) == []
