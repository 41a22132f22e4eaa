"""Recordings as traces: named tracks, no overlap, nothing before zero, and back again."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sarathi_plugin.cli import app
from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS, StepShape
from sarathi_plugin.records import RequestTimeline, StepRecord
from sarathi_plugin.telemetry.chrome_trace import from_trace, to_trace
from sarathi_plugin.telemetry.journal import Scheduled
from sarathi_plugin.telemetry.recording import Recording, read_recording
from sarathi_plugin.telemetry.request_track import chunks_of, request_slices

STALL = Path(__file__).parents[2] / "data" / "stall.jsonl.gz"
"""A real run of prefill-first: chats, then prompts of 12,000 tokens. Prompt hashes are taken out."""


@pytest.fixture(scope="module")
def stall() -> Recording:
    return read_recording(STALL)


def check(trace: dict) -> None:
    """What every viewer needs."""
    names: dict[tuple[int, int | None], str] = {}
    slices = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "M":
            key = (event["pid"], event["tid"] if event["name"] == "thread_name" else None)
            assert key not in names
            names[key] = event["args"]["name"]
            continue
        assert event["ts"] >= 0
        assert (event["pid"], None) in names
        assert (event["pid"], event["tid"]) in names
        if event["ph"] == "X":
            assert event["dur"] >= 0
            slices[event["pid"], event["tid"]].append(
                (event["ts"], event["ts"] + event["dur"], event["name"])
            )
    for track in slices.values():
        for (_, end, one), (start, _, two) in pairwise(sorted(track)):
            assert end <= start + 1e-4, (one, two)  # a tenth of a nanosecond: these are floats


def test_a_real_recording(stall: Recording) -> None:
    trace = json.loads(json.dumps(to_trace(stall)))
    check(trace)
    back = from_trace(trace)
    assert back.head == stall.head
    assert back.steps == stall.steps
    assert back.timelines == stall.timelines
    assert back.step_time == stall.step_time


def test_slices_lie_where_their_steps_ran() -> None:
    """Under async scheduling a step is scheduled before it starts."""
    steps = [make_step(1, 10, 20), dataclasses.replace(make_step(2, 20, 35), schedule_ns=ms(12))]
    events = to_trace(Recording(steps=steps))["traceEvents"]
    assert [(e["ts"], e["dur"]) for e in events if e["ph"] == "X"] == [(0, 10_000), (10_000, 15_000)]


def test_every_prompt_token_of_a_real_recording_is_in_a_chunk(stall: Recording) -> None:
    chunks = chunks_of(stall)
    for timeline in stall.timelines:
        assert sum(tokens for _, _, tokens in chunks[timeline.request_id]) == timeline.prompt_tokens


def test_misses_of_a_real_recording_are_those_it_counted(stall: Recording) -> None:
    for timeline in stall.timelines:
        pieces = request_slices(timeline, [])
        missed = sum(piece.facts["missed"] for piece in pieces if piece.kind == "late token")
        assert missed == timeline.missed
        assert sum(piece.kind in ("token", "late token") for piece in pieces) == len(timeline.token_ns)


def ms(value: float) -> int:
    return round(value * NS_PER_MS)


def make_timeline(tokens_ms: list[float], end_ms: float, status: str = "finished") -> RequestTimeline:
    return RequestTimeline(
        "r", "server", "standard", 0, None, ms(5), tuple(map(ms, tokens_ms)), ms(end_ms), status,  # type: ignore[arg-type]
        10, ms(100), ms(20), 0, "c", 0, 0,
    )  # fmt: skip


def make_step(number: int, start_ms: float, end_ms: float) -> StepRecord:
    return StepRecord(
        number, ms(start_ms), ms(start_ms), ms(end_ms), StepShape(1, 1, 5, 3, 9.0), 1, ms(5), None, 512, "slack", 1, 0,
        7, 0, 0, 1000, False,
    )  # fmt: skip


def kinds(pieces: list) -> list[tuple[str, float, float]]:
    return [(p.kind, p.start_ns / NS_PER_MS, p.end_ns / NS_PER_MS) for p in pieces if p.end_ns > p.start_ns]


def test_the_life_of_a_request() -> None:
    """Due at 20 ms; the first token comes at 30. The second is due at 130 and comes at 200."""
    pieces = request_slices(make_timeline([30, 200, 250], 250), [(ms(10), ms(30), 10)])
    assert kinds(pieces) == [
        ("queued", 0, 5), ("wait", 5, 10), ("chunk", 10, 30), ("decode", 30, 130), ("late", 130, 200),
        ("decode", 200, 250),
    ]  # fmt: skip
    moments = [(p.kind, p.facts.get("missed")) for p in pieces if p.end_ns == p.start_ns]
    assert moments == [("late token", 1), ("late token", 1), ("token", None)]


def test_a_request_aborted_while_overdue() -> None:
    pieces = request_slices(make_timeline([10], 300, "aborted"), [])
    assert kinds(pieces)[-2:] == [("decode", 10, 120), ("late", 120, 300)]


def test_a_request_that_never_had_a_token() -> None:
    assert kinds(request_slices(make_timeline([], 50, "aborted"), [])) == [("queued", 0, 5), ("wait", 5, 50)]


def test_a_preempted_request_computes_its_prompt_again() -> None:
    steps = [make_step(1, 10, 20), make_step(2, 20, 30), make_step(3, 30, 40), make_step(4, 40, 60)]
    events = [
        Scheduled(ms(10), ("r",), (10,)),
        Scheduled(ms(20), ("r",), (1,)),
        Scheduled(ms(30), ("x",), (1,), ("r",)),
        Scheduled(ms(40), ("r",), (11,)),
    ]
    timeline = make_timeline([20, 30, 60], 60)
    recording = Recording(steps=steps, timelines=[timeline], events=list(events))
    assert chunks_of(recording)["r"] == [(ms(10), ms(20), 10), (ms(40), ms(60), 11)]
    check(to_trace(recording))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_slices_never_overlap(data: st.DataObject) -> None:
    """Whatever came when, chunks between tokens and before the arrival of the first included."""
    times = sorted(data.draw(st.lists(st.integers(1, 500), max_size=8)))
    end = max([*times, data.draw(st.integers(1, 600))])
    edges = sorted(set(data.draw(st.lists(st.integers(0, 600), max_size=8))))
    chunks = [(ms(a), ms(b), 3) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    timeline = make_timeline([float(t) for t in times], float(end))
    pieces = [p for p in request_slices(timeline, chunks) if p.end_ns > p.start_ns]
    for one, two in pairwise(pieces):
        assert one.end_ns <= two.start_ns
    covered = sum(p.end_ns - p.start_ns for p in pieces if p.kind != "chunk")
    outside = sum(max(0, min(b, ms(end)) - a) for a, b, _ in chunks)
    assert covered + outside == ms(end)


def test_an_empty_recording_is_a_trace_too() -> None:
    check(to_trace(Recording()))


def test_something_else_is_no_trace_of_ours() -> None:
    with pytest.raises(ConfigError, match="not made from a recording"):
        from_trace({"traceEvents": []})


# -- the command ---------------------------------------------------------------------------------------------------


def run(*arguments: object):
    return CliRunner().invoke(app, ["trace", "export", *map(str, arguments)])


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
def test_export(tmp_path: Path, name: str, stall: Recording) -> None:
    result = run(STALL, "--out", tmp_path / name)
    assert result.exit_code == 0, result.output
    assert f"{len(stall.steps)} steps, {len(stall.timelines)} requests" in result.output
    data = (tmp_path / name).read_bytes()
    trace = json.loads(gzip.decompress(data) if name.endswith(".gz") else data)
    assert from_trace(trace).timelines == stall.timelines


def make(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["No such file"]),
        (b"plain text", ["is not a recording", "--sarathi-record"]),
        (gzip.compress(b"not json\n"), ["not a recording"]),
        (gzip.compress(b'{"type": "odd"}\n'), ["not a recording", "odd"]),
        (gzip.compress(b'{"type": "head"}\n'), ["holds no step and no request"]),
    ],
)
def test_bad_recordings_are_one_sentence(tmp_path: Path, content: bytes | None, words: list[str]) -> None:
    path = tmp_path / "r.jsonl.gz"
    if content is not None:
        make(path, content)
    result = run(path)
    assert result.exit_code == 2
    assert all(word in result.stderr for word in words), result.stderr
    assert result.stderr.count("\n") == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    result = run(STALL, "--out", tmp_path / "no" / "t.json")
    assert result.exit_code == 2
    assert "Cannot write" in result.stderr


@pytest.mark.parametrize("name", ["r.jsonl.gz", "r.trace.json.gz"])
def test_a_recording_is_not_overwritten_by_its_trace(tmp_path: Path, name: str) -> None:
    """Nor when its own name is the one that a trace gets unasked."""
    path = make(tmp_path / name, STALL.read_bytes())
    for result in (run(path, "--out", path), *([run(path)] if "trace" in name else [])):
        assert result.exit_code == 2
        assert (
            result.stderr == f"{path} is read here, and writing it would destroy it: choose another --out.\n"
        )
    assert path.read_bytes() == STALL.read_bytes()


def test_a_name_that_no_viewer_takes(tmp_path: Path) -> None:
    result = run(STALL, "--out", tmp_path / "t.txt")
    assert result.exit_code == 2
    assert result.stderr == "Name the trace *.json or *.json.gz, not 't.txt'.\n"


def test_a_recording_that_is_cut_off_is_drawn_and_told(tmp_path: Path, stall: Recording) -> None:
    data = STALL.read_bytes()
    result = run(make(tmp_path / "r.jsonl.gz", data[: len(data) // 2]))
    assert result.exit_code == 0
    assert result.stderr.startswith(f"{tmp_path / 'r.jsonl.gz'} is cut off; read up to step ")
    assert f"step {stall.steps[-1].step}\n" not in result.stderr
