"""From recordings of one engine to its profile; recordings that make none are refused in one sentence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import StepShape
from sarathi_plugin.records import StepRecord
from sarathi_plugin.steptime.machine import ProfileModel
from sarathi_plugin.steptime.profile import read_profile
from sarathi_plugin.telemetry.fit_command import fit, fit_recordings, frontend_s
from sarathi_plugin.telemetry.journal import Arrived, Hashed
from sarathi_plugin.telemetry.recorder import to_line
from sarathi_plugin.telemetry.recording import Recording
from sarathi_plugin.telemetry.traffic import under_traffic
from tests.unit.telemetry.scene import make_record

HOST_NS = 1_000_000
MODEL = {
    "name": "small", "layers": 4, "hidden_size": 256, "heads": 8, "kv_heads": 2, "head_dim": 32,
    "max_model_len": 4096, "weight_bytes": 0, "kv_scalar_bytes": 4,
}  # fmt: skip
ENGINE = {"num_gpu_blocks_override": 500, "block_size": 16, "tensor_parallel_size": 1}
HEAD = {"model": MODEL, "engine": ENGINE, "vllm_version": "0.32.0"}
KV_BYTES = 2 * 4 * 2 * 32 * 4 * 500 * 16


def duration_ns(shape: StepShape) -> int:
    """A machine of 10 us a token, 2 ms a step with decodes and 3 ms a step with prompts."""
    tokens = shape.decode_tokens + shape.prefill_tokens
    return (
        10_000 * tokens + (2_000_000 if shape.decode_rows else 0) + (3_000_000 if shape.prefill_tokens else 0)
    )


def steps(count: int = 600) -> list[StepRecord]:
    """A run of that machine, with 1 ms of host time between the steps."""
    found, now = [], 1_000_000_000
    for i in range(count):
        rows, chunk = 1 + i * 7 % 32, (i * 37 % 500 + 1) * (i % 3 == 0)
        shape = StepShape(rows, rows, 100 * rows, chunk, chunk * chunk / 2)
        end = now + duration_ns(shape)
        found.append(make_record(shape, step=i + 1, schedule_ns=now, start_ns=now, end_ns=end, running=rows))
        now = end + HOST_NS
    return found


def arrival(waited_s: float) -> Arrived:
    return Arrived("a", 1, 100.0 + waited_s, 100.0, 10, 20, 0, "")


def recording(head: dict[str, Any] = HEAD, waits_s: tuple[float, ...] = (0.002, 0.004, 9.0)) -> Recording:
    events = [Hashed("a", ()), *map(arrival, waits_s)]
    return Recording(head=head, steps=steps(), events=events)


def refused(*heads: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        fit_recordings([Recording(head=head, steps=steps(50)) for head in heads], name="n", hardware="h")
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_a_recording_gives_the_profile_of_its_machine():
    profile, _ = fit_recordings([recording()], name="mine", hardware="a machine")
    assert (profile.name, profile.hardware, profile.vllm_version) == ("mine", "a machine", "0.32.0")
    assert profile.model.model_dump() == MODEL
    assert profile.tensor_parallel == 1
    assert profile.frontend_s == 0.004
    assert profile.host_s + 10 * profile.host_request_s == pytest.approx(HOST_NS / 1e9, rel=0.02)
    assert profile.provenance.source == "1 recorded run(s) of small"
    model = ProfileModel(profile)
    for shape in (StepShape(8, 8, 800), StepShape(30, 30, 3000), StepShape(4, 4, 400, 256, 32_768.0)):
        assert model.predict_ns(shape) == pytest.approx(duration_ns(shape), rel=0.03)


def test_memory_is_what_the_blocks_of_the_run_take():
    profile, _ = fit_recordings([recording()], name="n", hardware="h")
    assert profile.kv_cache_bytes == profile.memory_bytes == KV_BYTES


@pytest.mark.parametrize(("devices", "expected"), [(2, KV_BYTES // 2), (4, KV_BYTES // 2)])
def test_memory_is_that_of_one_device(devices: int, expected: int):
    head = HEAD | {"engine": ENGINE | {"tensor_parallel_size": devices}}
    profile, _ = fit_recordings([recording(head)], name="n", hardware="h")
    assert profile.tensor_parallel == devices
    assert profile.kv_cache_bytes == expected  # fewer heads than devices: each holds one


def test_steps_since_the_first_request_of_no_grid_are_of_traffic():
    run = recording(waits_s=())
    starts = [step.schedule_ns for step in run.steps]
    for at, name in (
        (0, "cmpl-1-grid-1-prompt-0-0-a"),
        (300, "cmpl-1-traffic-0-0-b"),
        (400, "cmpl-1-grid-9-0"),
    ):
        run.events.append(Arrived(name, starts[at], 100.0, 100.0, 10, 20, 0, ""))
    assert under_traffic(run) == [False] * 300 + [True] * 300
    _, report = fit_recordings([run, recording(waits_s=())], name="n", hardware="h")
    of_traffic = [step for step in run.steps[300:] if step.shape.prefill_tokens]
    assert report.traffic["with prompts"].steps == len(of_traffic)
    assert not any(under_traffic(Recording(steps=steps())))


@pytest.mark.parametrize("name", ["grid-1", "upgrid-1", "cmpl-7-my-grid"])
def test_a_name_that_only_looks_like_a_grids_is_of_traffic(name: str):
    run = Recording(steps=steps(5), events=[Arrived(name, 1, 1.0, 1.0, 10, 20, 0, "")])
    assert under_traffic(run) == [name != "grid-1"] * 5


def test_several_recordings_are_fitted_together():
    runs = [recording(waits_s=(0.001,)), recording(waits_s=(0.002, 0.003))]
    profile, _ = fit_recordings(runs, name="n", hardware="h")
    assert profile.frontend_s == 0.002
    assert profile.provenance.source == "2 recorded run(s) of small"
    given, _ = fit_recordings(runs, name="n", hardware="h", source="a test")
    assert given.provenance.source == "a test"


@pytest.mark.parametrize(
    ("waits_s", "expected"),
    [((), 0.0), ((0.5,), 0.5), ((0.25, 0.5), 0.375), ((-0.5,), 0.0), ((-0.5, 0.5, 0.75), 0.5)],
)
def test_frontend_time_is_a_median_and_never_negative(waits_s: tuple[float, ...], expected: float):
    assert frontend_s([recording(waits_s=waits_s)]) == expected


def test_waiting_for_a_step_to_end_is_no_time_of_the_front_end():
    """Half a millisecond before every second step an engine at rest is met; before the others, the end of a step."""
    run = recording(waits_s=())
    rest_s, step_s = HOST_NS / 2e9, 0.003
    for i, step in enumerate(run.steps[1:9]):
        wait_s = step_s if i % 2 else rest_s
        run.events.append(Arrived(f"{i}", step.start_ns, 8.0 + wait_s, 8.0, 10, 20, 0, ""))
    assert frontend_s([run]) == pytest.approx(rest_s)


def test_without_an_engine_at_rest_the_least_wait_counts():
    run = recording(waits_s=())
    for i, wait_s in enumerate((0.004, 0.002, 0.003)):
        run.events.append(Arrived(f"{i}", run.steps[i + 1].start_ns, 8.0 + wait_s, 8.0, 10, 20, 0, ""))
    assert frontend_s([run]) == pytest.approx(0.002)


BAD = {
    "different models": (
        [HEAD, HEAD | {"model": MODEL | {"layers": 5}}],
        "The recordings are of different models; a profile is of one.",
    ),
    "one without a model": (
        [HEAD, {"vllm_version": "0.32.0"}],
        "The recordings are of different models; a profile is of one.",
    ),
    "head without model": (
        [{"vllm_version": "0.32.0"}],
        "The recording does not say its model: record it again with this version.",
    ),
    "no head": (
        [{}],
        "A recording has no head: it is empty, or not whole; leave that file out, or record it again.",
    ),
    "model without layers": (
        [HEAD | {"model": {k: v for k, v in MODEL.items() if k != "layers"}}],
        "the head of the recording: layers: this key is missing.",
    ),
    "model of a later version": (
        [HEAD | {"model": MODEL | {"experts": 8}}],
        "the head of the recording: experts: this key is not known.",
    ),
    "number of an odd size": (
        [HEAD | {"model": MODEL | {"kv_scalar_bytes": 3}}],
        "the head of the recording: kv_scalar_bytes: Input should be 1, 2 or 4, got 3.",
    ),
}


@pytest.mark.parametrize(("heads", "sentence"), BAD.values(), ids=BAD.keys())
def test_recordings_that_make_no_profile_are_refused(heads: list[dict[str, Any]], sentence: str):
    assert refused(*heads) == sentence


def test_a_run_that_is_too_short_is_refused():
    assert "needs 200 or more usable steps" in refused(HEAD)


def write(path: Path, wanted: Recording) -> Path:
    lines = [json.dumps({"type": "head", **wanted.head}) + "\n"]
    lines += [to_line("step", step) for step in wanted.steps]
    lines += [to_line("arrived", event) for event in wanted.events if isinstance(event, Arrived)]
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return path


def test_the_command_writes_a_profile_that_can_be_read_and_says_so(tmp_path: Path):
    said: list[str] = []
    source, out = write(tmp_path / "run.jsonl.gz", recording()), tmp_path / "mine.json"
    fit([source], out, name=None, hardware="a machine", report=None, say=said.append, warn=said.append)
    profile = read_profile(str(out))
    assert (profile.name, profile.hardware, profile.frontend_s) == ("mine", "a machine", 0.004)
    assert profile.kv_cache_bytes == KV_BYTES
    assert said[-1] == f"wrote {out}; use it with: sarathi simulate WORKLOAD --profile {out}"
    fit([source], out, name="named", hardware=None, report=None, say=said.append, warn=said.append)
    assert read_profile(str(out)).name == "named"
    assert read_profile(str(out)).hardware


def test_a_path_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    source, out = write(tmp_path / "run.jsonl.gz", recording()), tmp_path / "none" / "mine.json"
    with pytest.raises(ConfigError) as caught:
        fit([source], out, name=None, hardware=None, report=None, say=print, warn=print)
    assert str(caught.value) == f"Cannot write {out}: No such file or directory; choose another --out."


def test_a_recording_is_not_overwritten_by_its_profile(tmp_path: Path):
    sources = [write(tmp_path / f"{name}.jsonl.gz", recording()) for name in "ab"]
    (tmp_path / "mine.json").symlink_to(sources[1])
    before = sources[1].read_bytes()
    for out in (sources[1], tmp_path / "mine.json"):
        with pytest.raises(ConfigError) as caught:
            fit(sources, out, name=None, hardware=None, report=None, say=print, warn=print)
        assert (
            str(caught.value) == f"{out} is read here, and writing it would destroy it: choose another --out."
        )
    assert sources[1].read_bytes() == before


def test_a_recording_that_is_cut_off_is_fitted_and_told(tmp_path: Path):
    warned: list[str] = []
    source = write(tmp_path / "run.jsonl.gz", recording())
    source.write_bytes(source.read_bytes() + gzip.compress(b"{}")[:-4])
    fit(
        [source], tmp_path / "mine.json", name=None, hardware=None, report=None, say=print, warn=warned.append
    )
    assert warned == [f"{source} is cut off; read up to step 600"]
