"""What to simulate: engine arguments as a server takes them, and how many engines behind which router."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from sarathi_plugin.config import ConfigError, Settings, Strict, make_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sarathi_plugin.steptime.profile import StepTimeProfile

STOCK = "stock"
"""The scheduler name for vLLM's own class, without anything of ours."""

ACTIVATION_BYTES = 2 * 10**9
"""Memory left aside for activations and graphs on each device: an assumption, as vLLM measures it at start."""


MOST = 2**31 - 1
"""The largest number that vLLM's own counts of tokens, requests and blocks hold."""


class Speculation(Strict):
    """Speculative decoding by acceptance rate: each drafted token is accepted with this chance until one is not."""

    tokens: int = Field(ge=1, le=16, description="Drafted tokens a step.")
    acceptance: float = Field(ge=0, le=1, description="Chance that a drafted token is accepted.")
    draft_s: float = Field(default=0, ge=0, le=3600, description="Time the drafts of one step take, seconds.")


class EngineSpec(Strict):
    """One engine. Names follow vLLM's own arguments; None leaves vLLM's default for the hardware."""

    scheduler: str = Field(default="sarathi", description=f"A policy by name, or {STOCK}.")
    sarathi: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the plugin, as in its YAML file."
    )
    max_num_batched_tokens: int | None = Field(default=None, gt=0, le=MOST, description="Most tokens a step.")
    max_num_seqs: int = Field(default=256, gt=0, le=MOST, description="Most running requests.")
    max_model_len: int | None = Field(
        default=None, gt=0, le=MOST, description="Longest prompt plus answer, tokens."
    )
    block_size: int = Field(default=16, gt=0, le=MOST, description="Tokens of a KV block.")
    enable_prefix_caching: bool = Field(default=True, description="Reuse KV blocks of shared prefixes.")
    async_scheduling: bool = Field(
        default=True, description="Schedule a step ahead (vLLM's default on GPUs)."
    )
    pipeline_parallel_size: int = Field(default=1, ge=1, le=MOST, description="Pipeline stages.")
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1, description="Share of memory to use.")
    kv_cache_memory_bytes: int | None = Field(
        default=None, gt=0, le=2**60, description="KV memory of each device."
    )
    num_gpu_blocks_override: int | None = Field(
        default=None, gt=1, le=MOST, description="KV blocks, whatever the memory."
    )
    scheduling_policy: Literal["fcfs", "priority"] = Field(
        default="fcfs", description="Order of vLLM's queue."
    )
    long_prefill_token_threshold: int = Field(
        default=0, ge=0, le=MOST, description="Longest chunk of one prompt; 0: any."
    )
    speculation: Speculation | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scheduler == STOCK and self.sarathi:
            raise ValueError(
                f"the {STOCK} scheduler takes no settings of ours; use 'vllm' for stock decisions"
            )
        if taken := {"file", "scheduler"} & self.sarathi.keys():
            raise ValueError(f"sarathi: leave out {min(taken)!r}; the scheduler is named one level up")
        return self

    def settings(self) -> Settings:
        """The plugin's settings. Raises ConfigError."""
        if self.scheduler == STOCK:
            raise ConfigError(f"The {STOCK} scheduler has no settings of ours.")
        return make_settings(scheduler=self.scheduler, **self.sarathi)

    def model_length(self, profile: StepTimeProfile) -> int:
        """Longest prompt plus answer, tokens."""
        return self.max_model_len or profile.model.max_model_len

    def kv_bytes(self, profile: StepTimeProfile) -> int:
        """KV memory of each device: as given, as a run showed, or what is left after weights and activations.

        Raises ConfigError when nothing is left.
        """
        if self.kv_cache_memory_bytes is not None:
            return self.kv_cache_memory_bytes
        if profile.kv_cache_bytes is not None:
            return profile.kv_cache_bytes
        ranks = profile.tensor_parallel * self.pipeline_parallel_size
        weights = -(-profile.model.weight_bytes // ranks)
        found = int(profile.memory_bytes * self.gpu_memory_utilization) - weights - ACTIVATION_BYTES
        if found <= 0:
            raise ConfigError(
                f"{profile.model.name} does not fit: {weights / 1e9:.1f} GB of weights on each of {ranks} devices "
                f"with {profile.memory_bytes / 1e9:.0f} GB; raise tensor or pipeline parallelism."
            )
        return found


def default_batched_tokens(profile: StepTimeProfile) -> int:
    """vLLM's default ``max_num_batched_tokens`` of an API server.

    8192 on GPUs of 70 GiB and more but the A100, else 2048. Source: vLLM 0.32, ``EngineArgs``
    (usage context OPENAI_API_SERVER).
    """
    large = profile.memory_bytes >= 70 * 2**30 and "a100" not in profile.hardware.lower()
    return 8192 if large else 2048


def with_setting(engine: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The fields of an EngineSpec with one set: KEY, sarathi.KEY or sarathi.policy.KEY. Raises ConfigError."""
    first, *inner = path.split(".")
    if not inner:
        return {**engine, first: value}
    if first != "sarathi" or not all(inner) or inner[:-1] not in ([], ["policy"]):
        raise ConfigError(f"No setting {path!r}; write KEY, sarathi.KEY or sarathi.policy.KEY.")
    inside, last = [first, *inner[:-1]], inner[-1]
    changed = target = dict(engine)
    for name in inside:
        held = target.get(name) or {}
        if not isinstance(held, dict):
            raise ConfigError(f"{name} holds settings (KEY: VALUE), not {held!r}.")
        target[name] = target = dict(held)
    target[last] = value
    return changed
