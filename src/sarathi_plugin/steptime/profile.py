"""A step-time profile on disk: how long steps of one model on one machine take, and where the numbers came from.

duration = linear(tokens) + decode_step + decode_row x rows + decode_context_token x context + prefill_step
+ prefill_token x tokens + prefill_pair x query-key pairs. ``linear`` is a table because it is a staircase: matrix
products run in tiles, so 264 tokens take a third longer than 256 on an A100 (Vidur, arXiv 2405.05465, operator tables).
A decode is a token and a row: it is sampled and its request looked after, which few tokens of a prompt ask for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from sarathi_plugin.config import ConfigError, Strict, explain

SHIPPED = Path(__file__).parents[1] / "data" / "step_profiles"


class ModelFacts(Strict):
    """What of the served model decides memory and block counts."""

    name: str = Field(description="The model.")
    layers: int = Field(gt=0, description="Transformer layers.")
    hidden_size: int = Field(gt=0, description="Width of the residual stream.")
    heads: int = Field(gt=0, description="Query heads.")
    kv_heads: int = Field(gt=0, description="Key-value heads.")
    head_dim: int = Field(gt=0, description="Width of a head.")
    max_model_len: int = Field(gt=0, description="Longest prompt plus answer, tokens.")
    weight_bytes: int = Field(ge=0, description="Size of all weights.")
    kv_scalar_bytes: Literal[1, 2, 4] = Field(default=2, description="Bytes of one number in the KV cache.")


class Residuals(Strict):
    """Real over predicted duration of steps, as equally spaced quantiles; mean 1.

    The outermost two are set so that the tails keep their means. Empty: steps take just what is predicted.
    """

    decode: list[float] = Field(default_factory=list, description="Steps without prompt tokens.")
    prefill: list[float] = Field(default_factory=list, description="Steps with prompt tokens.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for values in (self.decode, self.prefill):
            if values and (min(values) <= 0 or values != sorted(values)):
                raise ValueError("residual quantiles must ascend and be above zero")
            if len(values) == 1:
                raise ValueError("residual quantiles are two or more, or none")
        return self


class Provenance(Strict):
    """Where a profile comes from: what was measured, what was fitted, what was scaled or assumed."""

    source: str = Field(description="Where the measurements come from.")
    method: str = Field(description="How the numbers were derived from them.")
    measured: str = Field(default="", description="What rests on measurement of this machine and model.")
    fitted: str = Field(default="", description="What was fitted, with its error.")
    scaled: str = Field(default="", description="What was scaled from another machine or model.")
    assumed: str = Field(default="", description="What is an assumption.")


class StepTimeProfile(Strict):
    """Seconds everywhere, for one rank of ``tensor_parallel`` that work in lock-step."""

    format: Literal[2] = 2
    name: str = Field(description="Short name, as in sarathi simulate --profile NAME.")
    model: ModelFacts
    hardware: str = Field(description="The machine.")
    memory_bytes: int = Field(gt=0, description="Memory of one device.")
    kv_cache_bytes: int | None = Field(
        default=None, gt=0, description="KV memory of one device, where a run showed it; else worked out."
    )
    tensor_parallel: int = Field(default=1, ge=1, description="Devices that share every layer.")
    vllm_version: str = Field(default="", description="The vLLM it was measured on.")
    linear_s: list[tuple[int, float]] = Field(
        min_length=1,
        description="(tokens in the step, seconds), ascending; straight lines between, "
        "and on at the mean slope of the upper half.",
    )
    decode_step_s: float = Field(default=0, ge=0, description="Added when anything decodes.")
    decode_row_s: float = Field(default=0, ge=0, description="Per decode, beyond its token.")
    decode_context_token_s: float = Field(default=0, ge=0, description="Per token of context of a decode.")
    prefill_step_s: float = Field(default=0, ge=0, description="Added when any prompt is computed.")
    prefill_token_s: float = Field(default=0, ge=0, description="Per prompt token, beyond the table.")
    prefill_pair_s: float = Field(default=0, ge=0, description="Per query-key pair of prompt attention.")
    host_s: float = Field(default=0, ge=0, description="Host time between two steps, not overlapped.")
    host_request_s: float = Field(default=0, ge=0, description="The same, per running request.")
    frontend_s: float = Field(default=0, ge=0, description="From arrival at the server to the engine.")
    residuals: Residuals = Residuals()
    provenance: Provenance

    @model_validator(mode="after")
    def _check(self) -> Self:
        tokens = [n for n, _ in self.linear_s]
        seconds = [s for _, s in self.linear_s]
        if tokens[0] < 1 or tokens != sorted(set(tokens)):
            raise ValueError("linear_s needs token counts that ascend from one")
        if seconds[0] <= 0 or seconds != sorted(seconds):
            raise ValueError("linear_s needs positive times that never fall")
        if self.model.kv_heads % self.tensor_parallel and self.tensor_parallel % self.model.kv_heads:
            raise ValueError("tensor_parallel must divide the key-value heads, or they it")
        return self


def save_profile(profile: StepTimeProfile, path: Path) -> None:
    """Write a profile. Raises OSError."""
    path.write_text(profile.model_dump_json(indent=1) + "\n", encoding="utf-8")


def shipped_profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def read_profile(name: str) -> StepTimeProfile:
    """A shipped profile by name, or one from a file. Raises ConfigError."""
    path = Path(name)
    if not path.is_file():
        path = SHIPPED / f"{name}.json"
        if not path.is_file():
            known = ", ".join(shipped_profiles())
            raise ConfigError(f"No step-time profile {name!r}: give a file or one of {known}.")
    try:
        return StepTimeProfile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"Cannot read the step-time profile {path}: {error.strerror}.") from error
    except ValidationError as error:
        raise ConfigError(explain(error, str(path))) from error
