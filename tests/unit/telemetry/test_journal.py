"""The journal in a recording: every event comes back equal and in order, beside steps and requests."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import StepShape
from sarathi_plugin.records import RequestTimeline, StepRecord
from sarathi_plugin.steptime.online import OnlineModel
from sarathi_plugin.telemetry import recorder as module
from sarathi_plugin.telemetry.journal import (
    EVENTS,
    KINDS,
    Arrived,
    Event,
    Hashed,
    Left,
    Scheduled,
    Updated,
)
from sarathi_plugin.telemetry.recorder import Recorder, to_line
from sarathi_plugin.telemetry.recording import Recording, read_recording, tell_cut_off
from tests.unit.telemetry.scene import make_record

TIMELINE = RequestTimeline(
    "r1", "server", "standard", 100, None, 120, (150, 150, 190), 190, "finished", 9, 10, 5, 20, "abc", 3, 1
)
STEP = make_record(StepShape(1, 2, 3, 4, 5.5), step=7)
ALL: dict[str, Event] = {
    "arrival": Arrived("a", 1, 1234.5, 1234.25, 10, 20, -1, "batch", ("ab12", "cd34")),
    "arrival without class and hashes": Arrived("b", 2, 0.1, 0.3, 1, 1, 0, ""),
    "step": Scheduled(5, ("a", "b"), (3, 1), ("c", "d")),
    "step without anybody": Scheduled(6, (), ()),
    "update": Updated(7, {"a": 3, "b": 0}, ("b",)),
    "update with a token for each": Updated(8, {}),
    "some left": Left(9, ("a", "b"), "FINISHED_ABORTED"),
    "nobody left": Left(10, (), "FINISHED_ABORTED"),
    "all left": Left(11, None, "FINISHED_ERROR"),
    "hashes": Hashed("a", ("ef56",)),
    "no hashes": Hashed("b", ()),
}


@pytest.fixture(autouse=True)
def _short_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.02)


def record(path: Path, *things: Event | StepRecord | RequestTimeline) -> Recording:
    """Record, close, read back."""
    recorder = Recorder(str(path), 0, {"policy": "sarathi"}, OnlineModel(), 1234)
    recorder.engine_started()
    for thing in things:
        if isinstance(thing, StepRecord):
            recorder.observe_step(thing)
        elif isinstance(thing, RequestTimeline):
            recorder.request_finished(thing)
        else:
            recorder.note(thing)
    recorder.engine_stopping()
    return read_recording(path)


@pytest.mark.parametrize("event", ALL.values(), ids=ALL.keys())
def test_an_event_comes_back_equal(tmp_path: Path, event: Event):
    (found,) = record(tmp_path / "a.gz", event).events
    assert found == event
    assert type(found) is type(event)


def test_every_kind_of_event_is_tried_here():
    assert {type(event) for event in ALL.values()} == set(EVENTS.values())
    assert {EVENTS[name]: name for name in EVENTS} == KINDS


def test_kinds_of_events_and_of_other_lines_have_different_names():
    assert not EVENTS.keys() & {"head", "step", "request", "step_time"}


def test_events_keep_their_order_among_steps_and_requests(tmp_path: Path):
    events = [*ALL.values(), *reversed(ALL.values())]
    steps = [make_record(step=i) for i in range(len(events))]
    mixed = [thing for pair in zip(events, steps, strict=True) for thing in (*pair, TIMELINE)]
    found = record(tmp_path / "a.gz", *mixed)
    assert found.events == events
    assert found.steps == steps
    assert found.timelines == [TIMELINE] * len(events)
    with gzip.open(tmp_path / "a.gz", "rt") as file:
        types = [json.loads(line)["type"] for line in file]
    expected = [kind for event in events for kind in (KINDS[type(event)], "step", "request")]
    assert [kind for kind in types if kind not in ("head", "step_time")] == expected


def test_head_and_model_come_along(tmp_path: Path):
    found = record(tmp_path / "a.gz", STEP, TIMELINE)
    assert found.head == {"format": 2, "started_unix_s": 1234, "policy": "sarathi"}
    assert found.step_time["coefficients"] == OnlineModel().coefficients
    assert found.step_time["dropped"] == 0
    assert found.events == []


def test_events_that_the_disk_could_not_take_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BACKLOG", 2)
    recorder = Recorder(str(tmp_path / "a.gz"), 0, {}, OnlineModel(), 0)
    for event in ALL.values():  # nobody writes yet
        recorder.note(event)
    recorder.engine_started()
    recorder.engine_stopping()
    found = read_recording(recorder.path)
    assert found.events == list(ALL.values())[:2]
    assert found.step_time["dropped"] == len(ALL) - 2


def test_a_recording_that_ends_inside_a_flush_is_whole_up_to_there(tmp_path: Path):
    path = tmp_path / "a.gz"
    lines = [to_line(KINDS[type(event)], event).encode() for event in ALL.values()]
    first = gzip.compress(b"".join(lines[:4]))
    second = gzip.compress(b"".join(lines[4:]))
    for kept in range(2, len(second)):
        path.write_bytes(first + second[:kept])
        found = read_recording(path).events
        assert found == list(ALL.values())[: len(found)]
        assert len(found) >= 4


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (None, []),
        (-20, ["{path} is cut off; read up to step 7"]),
        (12, ["{path} is cut off; read no step"]),
    ],
)  # fmt: skip
def test_a_recording_that_is_cut_off_says_how_far_it_was_read(
    tmp_path: Path, kept: int | None, told: list[str]
):
    path, said = tmp_path / "a.gz", []
    whole = gzip.compress(to_line("step", STEP).encode())
    path.write_bytes((whole + whole)[:kept])
    found = read_recording(path)
    tell_cut_off(path, found, said.append)
    assert found.cut_off == bool(told)
    assert said == [line.format(path=path) for line in told]


def test_bytes_after_whole_lines_are_damage(tmp_path: Path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(to_line("step", STEP).encode()) + b"abc")
    with pytest.raises(ConfigError, match="is damaged in line 2, or not a recording: Not a gzipped file"):
        read_recording(path)


def test_damage_is_told_with_its_line_in_the_file(tmp_path: Path):
    path, good = tmp_path / "a.gz", to_line("step", STEP)
    path.write_bytes(gzip.compress((good * 3 + good[:40] + "\n" + good).encode()))
    with pytest.raises(ConfigError) as caught:
        read_recording(path)
    assert str(caught.value).startswith(f"{path} is damaged in line 4, or not a recording: ")
    assert str(caught.value).endswith(" at column 42.")


def test_an_empty_file_is_an_empty_recording(tmp_path: Path):
    (tmp_path / "a.gz").write_bytes(b"")
    assert read_recording(tmp_path / "a.gz") == Recording()


def broken() -> bytes:
    """A recording with bytes overwritten in the middle."""
    data = bytearray(gzip.compress(bytes(range(256)) * 20))
    data[10:14] = b"\xff" * 4
    return bytes(data)


VERSION = "is not a recording of this version: line 1: "
DAMAGED = "is damaged in line 1, or not a recording: "
BAD = {
    "no gzip": (b"abc", "is not a recording: give a file of --sarathi-record."),
    "broken": (broken(), DAMAGED),
    "no JSON": (gzip.compress(b"step\n"), DAMAGED),
    "no text": (gzip.compress(b"\xff\n"), DAMAGED),
    "no object": (gzip.compress(b"null\n"), VERSION),
    "a list": (gzip.compress(b"[1]\n"), VERSION),
    "no type": (gzip.compress(b"{}\n"), VERSION),
    "unknown field": (gzip.compress(b'{"type": "hashed", "x": 1}\n'), VERSION),
    "missing field": (gzip.compress(b'{"type": "left", "now_ns": 1}\n'), VERSION),
    "step without shape": (gzip.compress(b'{"type": "step", "step": 1}\n'), VERSION),
    "tokens that are no list": (gzip.compress(b'{"type": "request", "token_ns": 3}\n'), VERSION),
}


@pytest.mark.parametrize(("content", "complaint"), BAD.values(), ids=BAD.keys())
def test_a_bad_recording_is_refused_in_one_sentence(tmp_path: Path, content: bytes, complaint: str):
    path = tmp_path / "bad.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_recording(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert complaint in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_a_missing_recording_is_named(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        read_recording(tmp_path / "none.gz")
    assert (
        str(caught.value) == f"Cannot read the recording {tmp_path / 'none.gz'}: No such file or directory."
    )
