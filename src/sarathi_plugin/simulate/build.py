"""From a spec and a profile to vLLM's own objects: VllmConfig, KVCacheConfig, scheduler. No model, no weights."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.core.kv_cache_utils import (
    generate_scheduler_kv_cache_config,
    get_kv_cache_configs,
    resolve_kv_cache_block_sizes,
)
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.structured_output import StructuredOutputManager

from sarathi_plugin import plugins
from sarathi_plugin.config import ConfigError
from sarathi_plugin.engine.scheduler import build_scheduler
from sarathi_plugin.simulate.spec import STOCK, EngineSpec, default_batched_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sarathi_plugin.engine.parts import Clock
    from sarathi_plugin.steptime.profile import ModelFacts, StepTimeProfile

KV_SCALARS = {1: torch.float8_e4m3fn, 2: torch.bfloat16, 4: torch.float32}
LAYOUT = "LBNHC"
"""Workers decide the KV layout, and here are none; every dense layout takes the same bytes."""

_CONFIGS: dict[tuple[str, str], Any] = {}
"""Configurations take half a second to create, and a sweep needs few different ones."""


def model_files(model: ModelFacts, max_model_len: int) -> dict[str, Any]:
    """The ``config.json`` of a Llama with these facts: enough for vLLM to count memory."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": model.hidden_size,
        "intermediate_size": 4 * model.hidden_size,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "num_hidden_layers": model.layers,
        "vocab_size": 32_000,
        "max_position_embeddings": max(max_model_len, model.max_model_len),
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def batched_tokens(spec: EngineSpec, profile: StepTimeProfile) -> int:
    """``max_num_batched_tokens`` as a server would resolve it: given, the policy's own, or vLLM's default."""
    found = spec.max_num_batched_tokens
    if found is None and spec.scheduler != STOCK:
        settings = spec.settings()
        policy = plugins.make_policy(settings, plugins.manager_for(settings, (STOCK,)))
        found = policy.max_batched_tokens(spec.model_length(profile))
    return max(found or default_batched_tokens(profile), spec.max_num_seqs)


def vllm_config(spec: EngineSpec, profile: StepTimeProfile) -> Any:
    """A VllmConfig of one's own (schedulers change theirs). Raises ConfigError when vLLM refuses the arguments."""
    # Of our settings only the number of tokens reaches vLLM: variants that differ in others share one.
    resolved = {"scheduler": STOCK, "sarathi": {}, "max_num_batched_tokens": batched_tokens(spec, profile)}
    plain = spec.model_copy(update=resolved)
    key = (plain.model_dump_json(), profile.model_dump_json())
    if key not in _CONFIGS:
        _CONFIGS[key] = _create_config(plain, profile)
    return copy.deepcopy(_CONFIGS[key])


def _create_config(spec: EngineSpec, profile: StepTimeProfile) -> Any:
    length = spec.model_length(profile)
    more: dict[str, Any] = {}
    if spec.speculation:
        more["speculative_config"] = {
            "method": "ngram",
            "num_speculative_tokens": spec.speculation.tokens,
            "prompt_lookup_max": 3,
        }
    with tempfile.TemporaryDirectory(prefix="sarathi-sim-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (Path(folder) / "config.json").write_text(json.dumps(model_files(profile.model, length)))
        try:
            config = EngineArgs(
                model=folder,
                served_model_name=profile.model.name,
                skip_tokenizer_init=True,
                dtype="bfloat16",
                block_size=spec.block_size,
                max_model_len=length,
                max_num_batched_tokens=spec.max_num_batched_tokens,
                max_num_seqs=spec.max_num_seqs,
                enable_prefix_caching=spec.enable_prefix_caching,
                tensor_parallel_size=profile.tensor_parallel,
                pipeline_parallel_size=spec.pipeline_parallel_size,
                num_gpu_blocks_override=spec.num_gpu_blocks_override,
                scheduling_policy=spec.scheduling_policy,
                long_prefill_token_threshold=spec.long_prefill_token_threshold,
                enforce_eager=True,
                disable_log_stats=True,
                **more,
            ).create_engine_config()
        except (ValueError, NotImplementedError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"vLLM refuses these engine arguments: {reason[:300]}") from error
    # vLLM's CPU platform switches async scheduling off; the scheduler class itself does not mind.
    config.scheduler_config.async_scheduling = spec.async_scheduling
    if config.cache_config.kv_cache_layout is None:
        config.cache_config.kv_cache_layout = LAYOUT
    return config


def kv_cache_config(config: Any, spec: EngineSpec, profile: StepTimeProfile) -> Any:
    """vLLM's own block accounting for the KV memory of each stage. Raises ConfigError when one request does not fit."""
    model, stages = profile.model, spec.pipeline_parallel_size
    if stages > model.layers:
        raise ConfigError(
            f"{stages} pipeline stages are more than the {model.layers} layers of {model.name}."
        )
    layer = FullAttentionSpec(
        block_size=spec.block_size,
        num_kv_heads=max(1, model.kv_heads // profile.tensor_parallel),
        head_size=model.head_dim,
        dtype=KV_SCALARS[model.kv_scalar_bytes],
    )
    parts = [range(model.layers * k // stages, model.layers * (k + 1) // stages) for k in range(stages)]
    layers = [{f"model.layers.{i}.self_attn.attn": layer for i in part} for part in parts]
    memory = spec.kv_bytes(profile)
    try:
        found = generate_scheduler_kv_cache_config(get_kv_cache_configs(config, layers, [memory] * stages))
    except ValueError as error:
        length = spec.model_length(profile)
        page = layer.page_size_bytes * max(len(part) for part in parts)
        blocks = -(-length // spec.block_size)
        need = page * blocks
        if spec.num_gpu_blocks_override is not None and memory >= need:
            raise ConfigError(
                f"num_gpu_blocks_override: {spec.num_gpu_blocks_override} blocks of {spec.block_size} tokens cannot "
                f"hold one request of {length} tokens, which needs {blocks}; raise it or lower max_model_len."
            ) from error
        raise ConfigError(
            f"KV memory of {memory / 1e9:.2f} GB cannot hold one request of {length} tokens, which needs "
            f"{need / 1e9:.2f} GB; raise the memory or lower max_model_len."
        ) from error
    config.cache_config.num_gpu_blocks = found.num_blocks
    return found


def check_engine(spec: EngineSpec, profile: StepTimeProfile) -> None:
    """Raise ConfigError unless ``make_scheduler`` can make this one."""
    if spec.scheduler != STOCK:
        settings = spec.settings()
        plugins.make_policy(settings, plugins.manager_for(settings, (STOCK,)))
    kv_cache_config(vllm_config(spec, profile), spec, profile)


def make_scheduler(
    spec: EngineSpec,
    profile: StepTimeProfile,
    clock: Clock,
    observers: Mapping[str, object],
) -> Any:
    """The scheduler a server with these arguments would run, on the given clock. Raises ConfigError.

    observers: plugins that see every step and request, by name (unused by the stock scheduler).
    """
    config = vllm_config(spec, profile)
    kv = kv_cache_config(config, spec, profile)
    block_size, hash_block_size = resolve_kv_cache_block_sizes(kv, config)
    arguments = {
        "vllm_config": config,
        "kv_cache_config": kv,
        "structured_output_manager": StructuredOutputManager(config),
        "block_size": block_size,
        "hash_block_size": hash_block_size,
        "log_stats": False,
    }
    if spec.scheduler == STOCK:
        return (AsyncScheduler if spec.async_scheduling else Scheduler)(**arguments)
    return build_scheduler(settings=spec.settings(), clock=clock, observers=observers, **arguments)
