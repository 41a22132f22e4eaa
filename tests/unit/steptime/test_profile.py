"""Saved step-time profiles: what is written comes back, and bad files are refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import StepShape
from sarathi_plugin.steptime.features import FEATURES
from sarathi_plugin.steptime.online import OnlineModel
from sarathi_plugin.steptime.profile import StepTimeProfile, load_profile, save_profile

SHAPES = [
    StepShape(1, 1, 100),
    StepShape(64, 64, 90_000),
    StepShape(8, 8, 9000, 512, 1e6),
    StepShape(0, 0, 0, 2048, 2e6),
]
COEFFICIENTS = dict.fromkeys(FEATURES, 0.001)


def learned() -> OnlineModel:
    model = OnlineModel()
    for i in range(200):
        shape = SHAPES[i % len(SHAPES)]
        model.update(shape, 10_000_000 + 100_000 * shape.decode_tokens + 50_000 * shape.prefill_tokens)
    return model


def test_a_profile_comes_back_as_it_was_saved(tmp_path: Path):
    model, path = learned(), tmp_path / "profile.json"
    save_profile(
        model, str(path), model="a model", hardware="a machine", vllm_version="0.32.0", source="a test"
    )
    again = load_profile(str(path))
    assert again.ready
    assert again.margin == model.margin
    assert again.coefficients == pytest.approx(model.coefficients)
    for shape in SHAPES:
        assert again.predict_ns(shape) == pytest.approx(model.predict_ns(shape), rel=1e-9, abs=2)
    profile = StepTimeProfile.model_validate_json(path.read_bytes())
    assert (profile.model, profile.hardware, profile.vllm_version, profile.source) == (
        "a model",
        "a machine",
        "0.32.0",
        "a test",
    )


def test_a_loaded_profile_learns_on(tmp_path: Path):
    path = str(tmp_path / "profile.json")
    save_profile(learned(), path)
    model = load_profile(path)
    for _ in range(600):
        for shape in SHAPES:
            model.update(shape, 30_000_000)
    assert model.predict_ns(SHAPES[0]) == pytest.approx(30_000_000, rel=0.1)


BAD = {
    "missing feature": (
        {"coefficients": {"step": 1}},
        "must give a coefficient of zero or more for each of step, ",
    ),
    "negative": ({"coefficients": COEFFICIENTS | {"step": -1}}, "must give a coefficient of zero or more"),
    "no number": ('{"coefficients": {"step": NaN}}', "coefficients.step: Input should be a finite number"),
    "no coefficients": ({}, "coefficients: Field required."),
    "none of them": ({"coefficients": {}}, "must give a coefficient"),
    "unknown key": ({"coefficients": COEFFICIENTS, "speed": 1}, "speed: this key is not known"),
    "other format": ({"coefficients": COEFFICIENTS, "format": 2}, "format: Input should be 1, got 2"),
    "wrong type": (
        {"coefficients": COEFFICIENTS | {"step": "x"}},
        "coefficients.step: Input should be a valid number",
    ),
    "no JSON": ("step: 1", "Invalid JSON"),
}


@pytest.mark.parametrize(("content", "complaint"), BAD.values(), ids=BAD.keys())
def test_a_bad_profile_is_refused_in_one_sentence(tmp_path: Path, content: object, complaint: str):
    path = tmp_path / "profile.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_profile(str(path))
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert complaint in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_a_missing_profile_is_named(tmp_path: Path):
    path = str(tmp_path / "none.json")
    with pytest.raises(ConfigError, match=r"Cannot read the step-time profile .*none\.json: No such file"):
        load_profile(path)
