"""Recordings: complete up to the last flush, honest about what was dropped, and never in the engine's way."""

from __future__ import annotations

import gzip
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sarathi_plugin import plugins
from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import StepShape
from sarathi_plugin.records import RequestTimeline
from sarathi_plugin.steptime.online import OnlineModel
from sarathi_plugin.telemetry import recorder as module
from sarathi_plugin.telemetry.recorder import Recorder, check_path
from tests.unit.telemetry.scene import make_record

if TYPE_CHECKING:
    from collections.abc import Callable

TIMELINE = RequestTimeline(
    "r1", "server", "standard", 100, None, 120, (150, 150, 190), 190, "finished", 9, 10, 5, 20, "abc", 3, 1
)


@pytest.fixture(autouse=True)
def _short_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.02)


def make_recorder(path: Path, engine: int = 0) -> Recorder:
    return Recorder(str(path), engine, {"policy": "sarathi"}, OnlineModel(), 1234)


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def record(path: Path, *things: object) -> list[dict[str, Any]]:
    """Record steps and requests, close, read back."""
    recorder = make_recorder(path)
    recorder.engine_started()
    for thing in things:
        (recorder.request_finished if isinstance(thing, RequestTimeline) else recorder.observe_step)(thing)
    recorder.engine_stopping()
    return read(path)


def test_a_recording_has_a_head_what_happened_in_order_and_the_model(tmp_path: Path):
    shape = StepShape(1, 2, 3, 4, 5.5)
    step = make_record(shape, step=7, available_ns=None, fallback=True)
    head, first, second, model = record(tmp_path / "a.jsonl.gz", step, TIMELINE)
    assert head == {"type": "head", "format": 2, "started_unix_s": 1234, "policy": "sarathi"}
    assert first["type"] == "step"
    assert first["step"] == 7
    assert first["available_ns"] is None
    assert first["fallback"] is True
    assert StepShape(**first["shape"]) == shape
    assert second.pop("type") == "request"
    assert RequestTimeline(**second | {"token_ns": tuple(second["token_ns"])}) == TIMELINE
    assert model["type"] == "step_time"
    assert model["coefficients"] == OnlineModel().coefficients
    assert (model["margin"], model["dropped"]) == (0.5, 0)


def test_the_model_is_told_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MODEL_LINE_EVERY", 2)
    lines = record(tmp_path / "a.gz", *[make_record() for _ in range(5)])
    types = [line["type"] for line in lines]
    assert types == ["head", "step", "step", "step_time", "step", "step", "step_time", "step", "step_time"]


def test_what_the_disk_could_not_take_in_time_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "BACKLOG", 3)
    recorder = make_recorder(tmp_path / "a.gz")
    for i in range(5):  # nobody writes yet
        recorder.observe_step(make_record(step=i))
    recorder.engine_started()
    recorder.engine_stopping()
    lines = read(recorder.path)
    assert [line["step"] for line in lines if line["type"] == "step"] == [0, 1, 2]
    assert lines[-1]["dropped"] == 2


def test_what_a_policy_computed_with_numpy_is_recorded(tmp_path: Path):
    shape = StepShape(1, 2, 3, 4, np.float32(5.5))
    odd = make_record(shape, step=7, available_ns=np.int64(9), relegations=np.int64(2), limit=Path("slack"))
    _, first, second, _ = record(
        tmp_path / "a.jsonl.gz", odd, make_record(StepShape(1, 2, 3, 4, 5.5), step=8)
    )
    assert (first["available_ns"], first["relegations"], first["limit"]) == (9, 2, "slack")
    assert first["shape"]["prefill_attention"] == 5.5
    assert second["step"] == 8


def test_what_cannot_be_written_ends_the_recording_with_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    endless: dict[str, object] = {}
    endless["again"] = endless
    recorder = Recorder(str(tmp_path / "a.jsonl.gz"), 0, {"policy": endless}, OnlineModel(), 1234)
    with caplog.at_level(logging.ERROR):
        recorder.engine_started()
        recorder.engine_stopping()
    assert "the engine goes on without" in caplog.text


def test_a_model_without_coefficients_is_recorded_all_the_same(tmp_path: Path):
    class Other:
        ready, margin = True, 0.25

    recorder = Recorder(str(tmp_path / "a.gz"), 0, {}, Other(), 0)
    recorder.engine_started()
    recorder.engine_stopping()
    assert read(recorder.path)[-1] == {
        "type": "step_time",
        "coefficients": None,
        "margin": 0.25,
        "dropped": 0,
    }


ENDLESS = """
import sys, time
from sarathi_plugin.steptime.online import OnlineModel
from sarathi_plugin.telemetry import recorder
from tests.unit.telemetry.scene import make_record
recorder.FLUSH_S = 0.02
mine = recorder.Recorder(sys.argv[1], 0, {}, OnlineModel(), 0)
mine.engine_started()
step = 0
while True:
    for _ in range(50):
        mine.observe_step(make_record(step=step))
        step += 1
    print(step, flush=True)
    time.sleep(0.01)
"""


def test_a_process_that_is_killed_leaves_a_file_that_can_be_read(tmp_path: Path):
    path = tmp_path / "a.jsonl.gz"
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            written = path.stat().st_size if path.exists() else 0
            if (int(line) > 200 and written > 1000) or int(line) > 50_000:
                break
    finally:
        process.kill()
        process.communicate()
    lines = read(path)
    assert lines[0]["type"] == "head"
    steps = [line["step"] for line in lines if line["type"] == "step"]
    assert len(steps) > 50
    assert steps == list(range(len(steps)))


def test_a_new_recording_leaves_the_old_ones_under_numbered_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "run.jsonl.gz"
    first = record(path, TIMELINE, TIMELINE)
    with caplog.at_level(logging.WARNING):
        second = record(path, TIMELINE)
    third = record(path)
    assert [line["type"] for line in second] == ["head", "request", "step_time"]
    assert read(tmp_path / "run.1.jsonl.gz") == first
    assert read(tmp_path / "run.2.jsonl.gz") == second
    assert read(path) == third
    assert f"{path} held an earlier recording, which is now {tmp_path / 'run.1.jsonl.gz'}." in caplog.text


def test_an_empty_file_is_written_to(tmp_path: Path):
    (tmp_path / "a.gz").touch()
    assert record(tmp_path / "a.gz")
    assert [file.name for file in tmp_path.iterdir()] == ["a.gz"]


@pytest.mark.parametrize("name", ["a.gz", "new/folder/a.gz", "old.gz"])
def test_a_path_that_can_be_written_is_good_and_stays_untouched(tmp_path: Path, name: str):
    (tmp_path / "old.gz").write_text("old")
    check_path(str(tmp_path / name))
    assert [file.name for file in tmp_path.iterdir()] == ["old.gz"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("folder", "it is a folder"),
        ("file/a.gz", "file is not a folder"),
        ("a\0.gz", "embedded null.*"),
        ("n" * 300, "File name too long"),
    ],
)
def test_a_path_that_can_never_be_written_is_refused_in_a_sentence(tmp_path: Path, name: str, problem: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"^Cannot record to .*{problem}; give .*[.]$"):
        check_path(str(tmp_path / name))


def test_folders_are_made(tmp_path: Path):
    assert record(tmp_path / "new" / "folder" / "a.gz")


@pytest.mark.parametrize(
    ("name", "engine", "expected"),
    [
        ("a.jsonl.gz", 0, "a.jsonl.gz"),
        ("a.jsonl.gz", 2, "a.engine2.jsonl.gz"),
        ("a", 1, "a.engine1"),
    ],
)
def test_every_engine_has_a_file_of_its_own(tmp_path: Path, name: str, engine: int, expected: str):
    assert make_recorder(tmp_path / name, engine).path == tmp_path / expected


@pytest.fixture
def observe() -> Callable[[Recorder], tuple[plugins.Observers, list[str]]]:
    def connect(recorder: Recorder) -> tuple[plugins.Observers, list[str]]:
        manager = plugins.build_plugin_manager()
        plugins.register_plugin(manager, recorder, "sarathi-recorder")
        errors: list[str] = []
        return plugins.Observers(manager, errors.append), errors

    return connect


def test_a_path_that_cannot_be_written_switches_the_recorder_off(
    tmp_path: Path, observe: Any, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("")
    recorder = make_recorder(tmp_path / "file" / "a.gz")
    observers, errors = observe(recorder)
    with caplog.at_level(logging.ERROR):
        observers.call("engine_started", info=None)
        observers.call("observe_step", record=make_record(), tokens=None)
        observers.call("engine_stopping")
    assert errors == ["sarathi-recorder"]
    assert not observers.listening("observe_step")
    assert recorder._queue.empty()
    assert "switched off" in caplog.text


def test_a_disk_that_is_full_ends_the_recording_and_nothing_else(
    observe: Any, caplog: pytest.LogCaptureFixture
):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    recorder = make_recorder(full)
    observers, errors = observe(recorder)
    with caplog.at_level(logging.ERROR):
        observers.call("engine_started", info=None)
        recorder._thread.join(timeout=30)
        assert not recorder._thread.is_alive()
        observers.call("observe_step", record=make_record(), tokens=None)
        observers.call("engine_stopping")
    assert errors == []
    assert "Recording to /dev/full failed; the engine goes on without." in caplog.text


def test_stopping_without_a_start_is_nothing(tmp_path: Path):
    make_recorder(tmp_path / "a.gz").engine_stopping()
    assert not (tmp_path / "a.gz").exists()
