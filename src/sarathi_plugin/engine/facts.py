"""What a simulation needs to know of a running engine, as plain data."""

from __future__ import annotations

from typing import Any


def engine_facts(scheduler: Any) -> dict[str, Any]:
    """The engine arguments that decide what a scheduler does, under vLLM's names, as resolved."""
    config = scheduler.vllm_config
    scheduling, cache = config.scheduler_config, config.cache_config
    return {
        "max_num_batched_tokens": scheduling.max_num_batched_tokens,
        "max_num_seqs": scheduling.max_num_seqs,
        "max_model_len": config.model_config.max_model_len,
        "block_size": scheduler.block_size,
        "enable_prefix_caching": bool(cache.enable_prefix_caching),
        "async_scheduling": bool(scheduling.async_scheduling),
        "pipeline_parallel_size": config.parallel_config.pipeline_parallel_size,
        "tensor_parallel_size": config.parallel_config.tensor_parallel_size,
        "num_gpu_blocks_override": scheduler.kv_cache_config.num_blocks,
        "scheduling_policy": scheduling.policy,
        "long_prefill_token_threshold": scheduling.long_prefill_token_threshold,
        "speculative_tokens": scheduler.num_spec_tokens,
    }


def model_facts(config: Any) -> dict[str, Any]:
    """Facts of the served model, as ``steptime.profile.ModelFacts`` takes them (weights: unknown here, 0)."""
    model = config.model_config
    text = model.hf_text_config
    return {
        "name": str(model.served_model_name),
        "layers": text.num_hidden_layers,
        "hidden_size": text.hidden_size,
        "heads": text.num_attention_heads,
        "kv_heads": model.get_total_num_kv_heads(),
        "head_dim": model.get_head_size(),
        "max_model_len": model.max_model_len,
        "weight_bytes": 0,
        "kv_scalar_bytes": model.dtype.itemsize,
    }
