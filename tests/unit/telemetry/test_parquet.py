"""Parquet files: what is written comes back, always as the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars
import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import StepShape
from sarathi_plugin.records import RequestTimeline
from sarathi_plugin.telemetry.parquet import read_timelines, write_steps, write_timelines
from tests.unit.telemetry.scene import make_record

SERVED = RequestTimeline(
    "r1", "server", "standard", 100, None, 120, (150, 150, 190), 190, "finished", 9, 10, 5, 20, "abc", 3, 1
)
TIMELINES = [
    SERVED,
    replace(SERVED, request_id="r2", source="client", sent_ns=101, scheduled_ns=None),
    replace(SERVED, request_id="r3", token_ns=(), status="error", met=0, missed=0, error="http 503: später"),
    replace(SERVED, request_id="", arrival_ns=2**62, end_ns=2**62 + 1, token_ns=(2**62 + 1,)),
]


def test_timelines_come_back_as_they_were_and_in_order(tmp_path: Path):
    path = tmp_path / "a.parquet"
    write_timelines(path, TIMELINES)
    assert read_timelines(path) == TIMELINES
    assert all(isinstance(timeline.token_ns, tuple) for timeline in read_timelines(path))


@pytest.mark.parametrize("chosen", [[2], [2, 0], [0, 2, 2]])
def test_columns_do_not_depend_on_the_first_row(tmp_path: Path, chosen: list[int]):
    wanted = [TIMELINES[i] for i in chosen]
    write_timelines(tmp_path / "a.parquet", wanted)
    assert read_timelines(tmp_path / "a.parquet") == wanted


def test_no_timelines_are_a_file_all_the_same(tmp_path: Path):
    for name, timelines in (("none", []), ("all", TIMELINES)):
        write_timelines(tmp_path / name, timelines)
    assert read_timelines(tmp_path / "none") == []
    assert polars.read_parquet_schema(tmp_path / "none") == polars.read_parquet_schema(tmp_path / "all")


def test_the_same_timelines_are_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        write_timelines(tmp_path / name, TIMELINES * 50)
    write_timelines(tmp_path / "c", TIMELINES * 49)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_a_file_is_replaced(tmp_path: Path):
    for timelines in (TIMELINES, TIMELINES[:1]):
        write_timelines(tmp_path / "a", timelines)
    assert read_timelines(tmp_path / "a") == TIMELINES[:1]


STEPS = [
    [
        make_record(StepShape(1, 2, 3, 4, 5.5), step=1, available_ns=None, fallback=True),
        make_record(step=2, available_ns=77, limit="floor"),
    ],
    [],
    [make_record(step=1, budget=8192)],
]


def test_steps_are_rows_with_the_shape_in_columns_of_its_own(tmp_path: Path):
    write_steps(tmp_path / "a", STEPS)
    frame = polars.read_parquet(tmp_path / "a")
    assert frame.columns == [
        "engine", "step", "schedule_ns", "start_ns", "end_ns", "chunks", "predicted_ns", "available_ns", "budget",
        "limit", "running", "waiting", "free_blocks", "preemptions", "relegations", "policy_ns", "fallback",
        "decode_rows", "decode_tokens", "decode_context", "prefill_tokens", "prefill_attention",
    ]  # fmt: skip
    kinds = {name: kind for name, kind in frame.schema.items() if kind != polars.Int64}
    assert kinds == {
        "limit": polars.String,
        "fallback": polars.Boolean,
        "prefill_attention": polars.Float64,
    }


def test_every_step_is_a_row_that_tells_its_engine(tmp_path: Path):
    write_steps(tmp_path / "a", STEPS)
    rows = polars.read_parquet(tmp_path / "a").to_dicts()
    assert [(row["engine"], row["step"]) for row in rows] == [(0, 1), (0, 2), (2, 1)]
    assert [row["available_ns"] for row in rows] == [None, 77, None]
    assert [row["fallback"] for row in rows] == [True, False, False]
    assert [row["budget"] for row in rows] == [512, 512, 8192]
    assert StepShape(*(rows[0][name] for name in StepShape._fields)) == StepShape(1, 2, 3, 4, 5.5)


@pytest.mark.parametrize("steps", [[], [[]], [[], []]])
def test_no_steps_are_a_file_all_the_same(tmp_path: Path, steps: list[list[object]]):
    write_steps(tmp_path / "none", steps)
    write_steps(tmp_path / "all", STEPS)
    assert polars.read_parquet(tmp_path / "none").height == 0
    assert polars.read_parquet_schema(tmp_path / "none") == polars.read_parquet_schema(tmp_path / "all")


def test_the_same_steps_are_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        write_steps(tmp_path / name, STEPS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path: Path):
    with pytest.raises(OSError, match="No such file"):
        write_timelines(tmp_path / "none" / "a", TIMELINES)


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_timelines(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


BAD = {
    "no Parquet": b"nonsense, and some more of it",
    "nothing": b"",
    "cut off": None,
    "other columns": polars.DataFrame({"a": [1]}),
    "tokens and nothing else": polars.DataFrame({"token_ns": [[1]]}),
    "tokens that are no list": polars.DataFrame({"token_ns": [1]}),
    "no tokens": polars.DataFrame([TIMELINES[0]]).drop("token_ns"),
    "a column too many": polars.DataFrame([TIMELINES[0]]).with_columns(speed=1),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, content: bytes | polars.DataFrame | None):
    path = tmp_path / "bad.parquet"
    if isinstance(content, polars.DataFrame):
        content.write_parquet(path)
    elif content is None:
        write_timelines(path, TIMELINES)
        path.write_bytes(path.read_bytes()[:-20])
    else:
        path.write_bytes(content)
    assert refused(path).startswith(f"{path} is not a Parquet file of timelines: ")


def test_steps_are_no_timelines(tmp_path: Path):
    write_steps(tmp_path / "steps", STEPS)
    assert "is not a Parquet file of timelines" in refused(tmp_path / "steps")


def test_a_missing_file_is_named(tmp_path: Path):
    assert refused(tmp_path / "none").startswith(f"Cannot read {tmp_path / 'none'}: No such file")
