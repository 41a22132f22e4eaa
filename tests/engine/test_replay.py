"""A recording holds all that decided: played again, every scheduling decision is the same."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.simulate.replay import replay
from sarathi_plugin.telemetry.journal import Arrived, Scheduled
from sarathi_plugin.telemetry.recording import Recording, read_recording
from tests.engine.simulations import make_profile, make_traffic, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.vllm

SCARCE = {"num_gpu_blocks_override": 150, "max_model_len": 2048}
LOOPS = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def record(path: Path, scheduler: str, *, asynchronous: bool = False, **more: Any) -> Recording:
    traffic = make_traffic(120, gap_s=0.03, shared=320, aborts=11, prompt=(10, 1400), output=(5, 240))
    settings = {"record": str(path), **more.pop("settings", {})}
    run(scheduler, traffic, async_scheduling=asynchronous, settings=settings, forward=False, **SCARCE, **more)
    return read_recording(path)


@LOOPS
@pytest.mark.parametrize("scheduler", ["vllm", "sarathi-static", "sarathi"])
def test_every_decision_of_a_recorded_run_is_reached_again(
    tmp_path: Path, scheduler: str, asynchronous: bool
) -> None:
    recording = record(tmp_path / "run.jsonl.gz", scheduler, asynchronous=asynchronous)
    report = replay(recording)
    assert report.different == 0
    assert report.steps >= 400
    assert report.steps == len(recording.steps)
    assert report.preemptions > 5
    assert report.cached_tokens > 5000
    assert report.preemptions == sum(step.preemptions for step in recording.steps)
    assert {t.status for t in recording.timelines} == {"finished", "aborted"}


def test_speculation_is_refused_in_one_sentence(tmp_path: Path) -> None:
    recording = record(tmp_path / "run.jsonl.gz", "vllm", speculation={"tokens": 3, "acceptance": 0.6})
    with pytest.raises(ConfigError, match="speculative decoding cannot be replayed"):
        replay(recording)


def test_a_model_that_was_trained_before_starts_where_it_was(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(make_profile().model_dump_json())
    recording = record(tmp_path / "run.jsonl.gz", "sarathi", settings={"step_time_profile": str(profile)})
    profile.unlink()
    assert recording.head["model_state"]["trained"] is True
    assert replay(recording).different == 0


def other_budget(recording: Recording) -> None:
    recording.head["engine"]["max_num_batched_tokens"] = 700


def other_clock(recording: Recording) -> None:
    """Some hundred plans a second later."""
    plans = [i for i, event in enumerate(recording.events) if isinstance(event, Scheduled)]
    for i in plans[20:400]:
        event = recording.events[i]
        recording.events[i] = dataclasses.replace(event, now_ns=event.now_ns + 10**9)


def other_length(recording: Recording) -> None:
    at = next(i for i, event in enumerate(recording.events) if isinstance(event, Arrived))
    event = recording.events[at]
    recording.events[at] = dataclasses.replace(event, prompt_tokens=event.prompt_tokens + 100)


@pytest.mark.parametrize("change", [other_budget, other_clock, other_length])
def test_a_recording_that_was_tampered_with_is_told(tmp_path: Path, change: Any) -> None:
    recording = record(tmp_path / "run.jsonl.gz", "sarathi")
    change(recording)
    report = replay(recording)
    assert report.different > 0
    number, recorded, replayed = report.differences[0]
    assert number <= report.steps
    assert recorded != replayed or list(recorded) != list(replayed)


def test_recordings_that_cannot_be_replayed_say_why(tmp_path: Path) -> None:
    recording = record(tmp_path / "run.jsonl.gz", "vllm")
    dropped = dataclasses.replace(recording, step_time={**recording.step_time, "dropped": 3})
    with pytest.raises(ConfigError, match="3 records were dropped while recording"):
        replay(dropped)
    with pytest.raises(ConfigError, match="holds no scheduling decisions"):
        replay(dataclasses.replace(recording, events=[]))
    with pytest.raises(ConfigError, match="does not say its engine"):
        replay(dataclasses.replace(recording, head={}))
    with pytest.raises(ConfigError, match="holds no step"):
        replay(dataclasses.replace(recording, events=[], steps=[]))
