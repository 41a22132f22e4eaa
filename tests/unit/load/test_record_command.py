"""A recording is a grid and then traffic; what the server does with them is the business of tests with a real one."""

from __future__ import annotations

import contextlib
import tempfile
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.load import record_command
from sarathi_plugin.load.server import ServerError
from sarathi_plugin.workload.synthetic import GRID_ID
from tests.unit.load.answers import answer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("traffic_s", [0.0, 0.02])
def test_traffic_follows_the_grid_if_any_is_asked_for(
    stand_in, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traffic_s: float
):
    server, specs, told = stand_in(answer), [], []

    def serve(spec):
        specs.append(spec)
        return contextlib.nullcontext(SimpleNamespace(url=server.url))

    monkeypatch.setattr(record_command, "serve", serve)
    monkeypatch.setattr(record_command, "served_model", lambda _: ("m", 400))
    record_command.record(
        "a-model", tmp_path / "new" / "grid.jsonl.gz", ["--dtype", "float32"], max_streams=1, max_context=100,
        budget=64, traffic_s=traffic_s, seed=0, say=told.append,
    )  # fmt: skip
    [spec] = specs
    assert spec.args[-4:] == (
        "--sarathi-record",
        str(tmp_path / "new" / "grid.jsonl.gz"),
        "--dtype",
        "float32",
    )
    of_grid = [f"-{GRID_ID}" in headers["X-Request-Id"] for _, headers in server.headers]
    # Contexts of 64 and 100 tokens beside one stream, and none beside no stream; ten prompts each.
    assert of_grid[:32] == [True] * 32
    assert not any(of_grid[32:])
    assert bool(of_grid[32:]) == bool(traffic_s)
    assert any(line.startswith("traffic: ") for line in told) == bool(traffic_s)
    assert all(len(body["prompt"]) + body["max_tokens"] <= 101 for body in server.bodies[32:])


@pytest.mark.parametrize(
    ("error", "kept"), [(ServerError, True), (ConfigError, False), (KeyboardInterrupt, False)]
)
def test_the_log_of_a_server_that_failed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], kept: bool
):
    told: list[str] = []

    @contextlib.contextmanager
    def serve(spec):
        spec.log.write_text("no such model")
        raise error(f"The end of its log ({spec.log}):")
        yield

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(record_command, "serve", serve)
    with pytest.raises(error):
        record_command.record(
            "a-model", tmp_path / "grid.jsonl.gz", [], max_streams=1, max_context=100, budget=64, traffic_s=0, seed=0,
            say=told.append,
        )  # fmt: skip
    logs = list((tmp_path / "tmp").rglob("*.log"))
    assert [log.read_text() for log in logs] == (["no such model"] if kept else [])
    assert told[1:] == [f"the server's log is kept: {log}" for log in logs]
    assert kept or not list((tmp_path / "tmp").iterdir())
