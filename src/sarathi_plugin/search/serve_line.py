"""A simulated deployment as the command that serves it: ``vllm serve MODEL ...``, and the settings file it may need."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.search.space import STOCK
from sarathi_plugin.yamlfile import dump

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sarathi_plugin.search.deployment import Deployment

ENGINE_FLAGS = {
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "max_num_seqs": "--max-num-seqs",
    "max_model_len": "--max-model-len",
    "block_size": "--block-size",
    "pipeline_parallel_size": "--pipeline-parallel-size",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "kv_cache_memory_bytes": "--kv-cache-memory-bytes",
    "num_gpu_blocks_override": "--num-gpu-blocks-override",
    "scheduling_policy": "--scheduling-policy",
    "long_prefill_token_threshold": "--long-prefill-token-threshold",
}
"""Field of EngineSpec -> flag, written when the value is not the field's default."""

SWITCHES = {
    "enable_prefix_caching": "--no-enable-prefix-caching",
    "async_scheduling": "--no-async-scheduling",
}
"""Written when the field is false."""

SETTING_FLAGS = {
    "slo": "--sarathi-slo",
    "tbt_ms": "--sarathi-tbt-ms",
    "ttft_slack_ms": "--sarathi-ttft-slack-ms",
    "token_budget": "--sarathi-token-budget",
}


def serve_arguments(deployment: Deployment, settings_file: Path) -> tuple[list[str], dict[str, Any]]:
    """(arguments after the model, what ``settings_file`` must hold: nothing when no such file is needed).

    max_num_seqs is always said: a server's own default may differ from the simulator's. Raises ConfigError for what
    a server cannot be told.
    """
    engine = deployment.engine
    if engine.speculation is not None:
        raise ConfigError(
            "An acceptance rate cannot be served: choose a speculative method for the server yourself."
        )
    words = []
    if (degree := deployment.machine.tensor_parallel) > 1:
        words += ["--tensor-parallel-size", str(degree)]
    for name, flag in ENGINE_FLAGS.items():
        value = getattr(engine, name)
        if value != type(engine).model_fields[name].default or name == "max_num_seqs":
            words += [flag, str(value)]
    words += [flag for name, flag in SWITCHES.items() if not getattr(engine, name)]
    if engine.scheduler == STOCK:
        return words, {}
    words += ["--scheduler", engine.scheduler]
    settings = deployment.full_engine().sarathi
    for name, flag in SETTING_FLAGS.items():
        if settings.get(name) is not None:
            words += [flag, str(settings[name])]
    rest = {name: value for name, value in settings.items() if name not in SETTING_FLAGS}
    if rest:
        words += ["--sarathi-config", str(settings_file)]
    return words, rest


def serve_line(model: str, words: Sequence[str]) -> str:
    """The command for a shell."""
    return shlex.join(["vllm", "serve", model, *words])


def settings_text(settings: dict[str, Any]) -> str:
    """The settings file."""
    return dump(settings, sort_keys=True)
