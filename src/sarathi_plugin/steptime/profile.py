"""A step-time model on disk: JSON with features, coefficients, and where they came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from sarathi_plugin.config import ConfigError, Strict, explain
from sarathi_plugin.steptime.features import FEATURES, SCALE
from sarathi_plugin.steptime.online import OnlineModel

if TYPE_CHECKING:
    from collections.abc import Mapping

PROFILE_WEIGHT = 1.0
"""How many recent one-second steps a loaded profile counts for before new steps outweigh it."""


class StepTimeProfile(Strict):
    """Coefficients in seconds per unit of each feature, all >= 0."""

    format: Literal[1] = 1
    coefficients: dict[str, float] = Field(description="Seconds per unit, by feature name.")
    margin: float = Field(default=0.1, ge=0, description="Share by which steps exceed their prediction.")
    model: str = Field(default="", description="The served model.")
    hardware: str = Field(default="", description="The machine.")
    vllm_version: str = Field(default="", description="The vLLM it was measured on.")
    source: str = Field(default="", description="How it came about.")


def save_profile(model: OnlineModel, path: str, /, *, source: str = "", **about: str) -> None:
    """Write what the model has learned. Raises OSError."""
    profile = StepTimeProfile(coefficients=model.coefficients, margin=model.margin, source=source, **about)
    Path(path).write_text(profile.model_dump_json(indent=2) + "\n", encoding="utf-8")


def from_recording(
    head: Mapping[str, Any], step_time: Mapping[str, Any], *, hardware: str, source: str
) -> StepTimeProfile:
    """The profile of a recorded run, from its head and its last step-time line. Raises ConfigError without one."""
    coefficients = step_time.get("coefficients")
    if not coefficients:
        raise ConfigError(
            f"{source} holds no step-time model: it is too short, or another kind of model served."
        )
    return StepTimeProfile(
        coefficients=coefficients,
        margin=step_time["margin"],
        model=head["model_name"],
        hardware=hardware,
        vllm_version=head["vllm_version"],
        source=f"learned online, {source}",
    )


def load_profile(path: str) -> OnlineModel:
    """A model that starts from a saved profile and learns on. Raises ConfigError."""
    try:
        profile = StepTimeProfile.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"Cannot read the step-time profile {path}: {error.strerror}.") from error
    except ValidationError as error:
        raise ConfigError(explain(error, path)) from error
    missing = [name for name in FEATURES if name not in profile.coefficients]
    if missing or min(profile.coefficients.values()) < 0:
        raise ConfigError(
            f"{path} must give a coefficient of zero or more for each of {', '.join(FEATURES)}."
        )
    scaled = tuple(profile.coefficients[name] * scale for name, scale in zip(FEATURES, SCALE, strict=True))
    return OnlineModel(scaled, PROFILE_WEIGHT, trained=True, margin=profile.margin)
