"""Examples: what a user does wrong is one sentence, as of the commands."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["01_stream_one_answer.py", "02_open_loop_load.py"])
@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:9"])
def test_no_server_is_one_sentence(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", [name, url])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"No vLLM server answers at {url}")


def test_the_policy_that_an_example_names_is_that_of_the_plugin_beside_it():
    text = (EXAMPLES / "04_simulate_a_policy.py").read_text(encoding="utf-8")
    points = (EXAMPLES / "custom_policy" / "pyproject.toml").read_text(encoding="utf-8")
    assert "then name shortest-first." in text
    assert "\nshortest-first = " in points
