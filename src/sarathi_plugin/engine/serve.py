"""``sarathi serve``: ``vllm serve`` with our scheduler and the live page."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError, load_yaml
from sarathi_plugin.engine.page import ENTRY_POINT
from sarathi_plugin.load.server import vllm_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LOADED_UNASKED = (
    "vllm.general_plugins", "vllm.platform_plugins", "vllm.io_processor_plugins", "vllm.stat_logger_plugins",
)  # fmt: skip
"""Entry-point groups of which vLLM loads everything while VLLM_PLUGINS is unset."""
ONLY_BY_NAME = ("lora_hf_hub_resolver",)
"""Plugins that load unasked, but do more (here: downloads) once VLLM_PLUGINS names them."""
OURS = ("sarathi", ENTRY_POINT)
LOOPBACK = "127.0.0.1"


def allow_list(given: str | None, installed: Callable[[str], Iterable[EntryPoint]] | None = None) -> str:
    """``VLLM_PLUGINS`` for all that would have loaded, and ours. given: its value now, None when unset."""
    if given is not None:
        names = [name for name in given.split(",") if name]
    else:
        find = installed or (lambda group: entry_points(group=group))
        names = [point.name for group in LOADED_UNASKED for point in find(group)]
        names = [name for name in names if name not in ONLY_BY_NAME]
    return ",".join(dict.fromkeys([*names, *OURS]))


def says(arguments: Sequence[str], *flags: str) -> bool:
    """Whether a command line gives one of these flags, in any of the spellings vLLM takes."""
    wanted = {flag.replace("_", "-") for flag in flags}
    return any(argument.partition("=")[0].replace("_", "-") in wanted for argument in arguments)


def config_keys(arguments: Sequence[str]) -> set[str]:
    """What the file of vLLM's own ``--config`` sets. Raises ConfigError."""
    for at, argument in enumerate(arguments):
        flag, has_value, value = argument.partition("=")
        if flag == "--config":
            if not has_value and at + 1 == len(arguments):
                raise ConfigError("--config needs a file.")
            data = load_yaml(value if has_value else arguments[at + 1])
            return {str(key).replace("_", "-") for key in data}
    return set()


def command(arguments: Sequence[str]) -> list[str]:
    """The command line: what was given, our scheduler and loopback where nothing was said of them."""
    added = []
    configured = config_keys(arguments)
    if not (says(arguments, "--scheduler", "--scheduler-cls") or configured & {"scheduler", "scheduler-cls"}):
        added += ["--scheduler", "sarathi"]
    if not (says(arguments, "--host", "--uds") or configured & {"host", "uds"}):
        added += ["--host", LOOPBACK]
    return [vllm_command(), "serve", *arguments, *added]


def serve(arguments: Sequence[str]) -> None:
    """Become ``vllm serve``. Raises ConfigError; returns never."""
    from sarathi_plugin.telemetry.page.assets import library_path

    if library_path() is None:
        raise ConfigError("The live page needs plotly: pip install 'sarathi-plugin[page]'.")
    argv = command(arguments)
    os.execve(argv[0], argv, {**os.environ, "VLLM_PLUGINS": allow_list(os.environ.get("VLLM_PLUGINS"))})  # noqa: S606
