"""A recording is a grid and then traffic; what the server does with them is the business of tests with a real one."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from sarathi_plugin.load import record_command
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
