"""Profiles on disk: what is written comes back, bad files are refused in one sentence, the shipped ones are sane."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS, StepShape
from sarathi_plugin.steptime.machine import ProfileModel
from sarathi_plugin.steptime.profile import SHIPPED, read_profile, save_profile, shipped_profiles
from tests.unit.steptime.machines import never_falls, profile, with_residuals

GPUS = {
    # name: (milliseconds of a step of 32 decodes at 1,024 tokens of context, cost of 264 tokens over 256)
    "a100-codellama-34b-tp2": ((28, 38), (1.15, 1.40)),
    "a100-llama-3-8b-tp1": ((12, 17), (1.25, 1.45)),
    "a100-llama-3-8b-tp2": ((9, 16), (1.05, 1.25)),
    "a100-llama-3-8b-tp4": ((7, 15), (1.05, 1.25)),
    "h100-llama-2-7b": ((10, 16), (1.01, 1.15)),
}


def test_a_profile_comes_back_as_it_was_saved(tmp_path: Path):
    path = tmp_path / "profile.json"
    saved = with_residuals(vllm_version="0.32.0", host_s=0.001, frontend_s=0.002)
    save_profile(saved, path)
    assert read_profile(str(path)) == saved
    assert json.loads(path.read_text())["format"] == 2


def test_a_profile_from_before_rows_had_a_cost_of_their_own_is_read(tmp_path: Path):
    path = tmp_path / "profile.json"
    facts = profile().model_dump(mode="json")
    del facts["decode_row_s"]
    path.write_text(json.dumps(facts))
    assert read_profile(str(path)) == profile(decode_row_s=0.0)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "old format": ({"format": 1}, "format: Input should be 2, got 1"),
    "unknown key": ({"speed": 1}, "speed: this key is not known"),
    "no table": ({"linear_s": []}, "linear_s: "),
    "tokens fall": ({"linear_s": [[2, 0.1], [1, 0.2]]}, "token counts that ascend from one"),
    "tokens twice": ({"linear_s": [[2, 0.1], [2, 0.2]]}, "token counts that ascend from one"),
    "no token": ({"linear_s": [[0, 0.1]]}, "token counts that ascend from one"),
    "times fall": ({"linear_s": [[1, 0.2], [2, 0.1]]}, "positive times that never fall"),
    "zero time": ({"linear_s": [[1, 0.0], [2, 0.1]]}, "positive times that never fall"),
    "negative term": ({"prefill_pair_s": -1e-9}, "prefill_pair_s: "),
    "residuals fall": ({"residuals": {"decode": [1.1, 0.9]}}, "must ascend and be above zero"),
    "one residual": ({"residuals": {"decode": [1.0]}}, "two or more, or none"),
    "residual of zero": ({"residuals": {"prefill": [0.0, 2.0]}}, "must ascend and be above zero"),
    "devices and heads": ({"tensor_parallel": 3}, "tensor_parallel must divide"),
    "no memory": ({"memory_bytes": 0}, "memory_bytes: "),
}


@pytest.mark.parametrize(("change", "complaint"), CHANGES.values(), ids=CHANGES.keys())
def test_a_bad_profile_is_refused_in_one_sentence(tmp_path: Path, change: dict[str, Any], complaint: str):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile().model_dump(mode="json") | change), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_profile(str(path))
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert complaint in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_what_is_no_json_is_refused(tmp_path: Path):
    path = tmp_path / "profile.json"
    path.write_text("linear_s: 1", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"profile\.json: .*Invalid JSON"):
        read_profile(str(path))


def test_a_missing_profile_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"No step-time profile 'b200': .* one of a100-.*, h100-llama-2-7b"):
        read_profile("b200")


def test_more_devices_than_key_value_heads_share_them():
    assert profile(tensor_parallel=8).tensor_parallel == 8


def test_the_gpu_profiles_are_shipped():
    assert set(GPUS) <= set(shipped_profiles())


@pytest.mark.parametrize("name", shipped_profiles())
def test_a_shipped_profile_says_what_it_is(name: str):
    found = read_profile(name)
    assert found.name == name
    assert found.hardware
    assert found.provenance.fitted
    assert (SHIPPED / f"{name}.json").stat().st_size < 12_000


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_profile_is_sane(name: str):
    found = read_profile(name)
    assert found.memory_bytes * found.tensor_parallel > found.model.weight_bytes
    assert "No run of vLLM" in found.provenance.method
    assert "2 ms" in found.provenance.assumed
    assert "sigma 0.03" in found.provenance.assumed
    (low, high), (least, most) = GPUS[name]
    model = ProfileModel(found)
    decode_ms = model.predict_ns(StepShape(32, 32, 32 * 1024)) / NS_PER_MS
    assert low < decode_ms < high
    prompt = [model.predict_ns(StepShape(0, 0, 0, n, n * n / 2)) for n in range(1, 8193)]
    assert never_falls(prompt)
    assert least < prompt[263] / prompt[255] < most


def test_only_the_h100_has_attention_of_another_device():
    scaled = [n for n in GPUS if "a100 to h100" in read_profile(n).provenance.scaled]
    assert scaled == ["h100-llama-2-7b"]
