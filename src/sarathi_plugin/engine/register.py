"""The ``vllm.general_plugins`` entry point: flags for every vLLM command line, and checks when they are used.

vLLM calls ``register`` in each of its processes, possibly more than once. Without ``--scheduler`` nothing of vLLM
changes but its help text.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError, Settings
from sarathi_plugin.engine import contract
from sarathi_plugin.engine.entry import settings_of
from sarathi_plugin.engine.flags import add_flags, used_by_command_line

if TYPE_CHECKING:
    from sarathi_plugin.policies.base import Policy

logger = logging.getLogger(__name__)


def register() -> None:
    """Wrap two methods of EngineArgs, if this process has it loaded at all. Safe to repeat; never raises."""
    arg_utils = sys.modules.get("vllm.engine.arg_utils")
    engine_args = getattr(arg_utils, "EngineArgs", None)
    if engine_args is None or getattr(engine_args, "_sarathi", False):
        return
    try:
        original_flags = engine_args.add_cli_args
        original_config = engine_args.create_engine_config
    except AttributeError:
        logger.warning("This vLLM has no EngineArgs.add_cli_args: no --scheduler flag.")
        return

    @functools.wraps(original_flags)
    def add_cli_args(parser: Any, *args: Any, **kwargs: Any) -> Any:
        parser = original_flags(parser, *args, **kwargs)
        add_flags(parser)
        return parser

    @functools.wraps(original_config)
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            settings = settings_of(self.scheduler_cls)
            if settings is None:
                return original_config(self, *args, **kwargs)
            return configure(self, settings, functools.partial(original_config, self, *args, **kwargs))
        except ConfigError as error:
            if used_by_command_line():
                print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is the command line's answer
                raise SystemExit(2) from None
            raise

    engine_args.add_cli_args = staticmethod(add_cli_args)
    engine_args.create_engine_config = create_engine_config
    engine_args._sarathi = True


def configure(arguments: Any, settings: Settings, create: Any) -> Any:
    """Create vLLM's configuration for one of our schedulers. Raises ConfigError.

    A policy's own ``max_num_batched_tokens`` is used where the user set none.
    """
    from sarathi_plugin import plugins
    from sarathi_plugin.engine import requests, stats
    from sarathi_plugin.steptime.profile import read_profile
    from sarathi_plugin.telemetry import recorder

    contract.log_beside_vllm()
    contract.check_version(contract.vllm_version())
    manager = plugins.manager_for(settings)
    policy = plugins.make_policy(settings, manager)
    plugins.make_step_time_model(settings, manager)
    if settings.step_time_profile:
        read_profile(settings.step_time_profile)
    if settings.record is not None:
        recorder.check_path(settings.record)
    classes = plugins.make_slo_classes(settings, manager)
    if arguments.enable_chunked_prefill is False:
        raise ConfigError("--scheduler needs chunked prefill; leave --no-enable-chunked-prefill out.")
    given = dict(vars(arguments))
    if arguments.max_num_batched_tokens is None:
        length = arguments.max_model_len
        if policy.whole_prompts and not isinstance(length, int):
            length = create().model_config.max_model_len
        wanted = policy.max_batched_tokens(length if isinstance(length, int) else 0)
        if wanted is not None:
            # vLLM refuses fewer tokens than sequences; the policy keeps to its own budget all the same.
            arguments.max_num_batched_tokens = max(wanted, arguments.max_num_seqs or 256)
    config = create()
    if unsupported := unsupported_model(config):
        logger.warning("--scheduler has no effect: %s Stock scheduling stays in place.", unsupported)
        vars(arguments).update(given, scheduler_cls=None)
        return create()
    check_budget(settings, config)
    check_whole_prompts(settings, policy, config)
    stats.extend_scheduler_stats()
    stats.install_stat_logger()
    requests.install_validation(tuple(classes))
    return config


def unsupported_model(config: Any) -> str | None:
    """Why this model cannot be scheduled by tokens, or None."""
    model = config.model_config
    if model.runner_type == "pooling":
        return "a pooling model emits no tokens."
    if model.is_encoder_decoder:
        return "an encoder-decoder model is not prefilled in chunks."
    if getattr(model, "is_diffusion", False):
        return "a diffusion model has no token deadlines."
    if not config.scheduler_config.enable_chunked_prefill:
        return "vLLM does not support chunked prefill for this model."
    return None


def check_budget(settings: Settings, config: Any) -> None:
    """Raises ConfigError when a fixed token budget cannot work."""
    if settings.token_budget == "auto":
        return
    most = config.scheduler_config.max_num_batched_tokens
    least = 1 + config.num_speculative_tokens
    if settings.token_budget > most:
        raise ConfigError(
            f"--sarathi-token-budget {settings.token_budget} is above max_num_batched_tokens ({most}); "
            "lower it or raise --max-num-batched-tokens."
        )
    if settings.token_budget < least:
        raise ConfigError(
            f"--sarathi-token-budget {settings.token_budget} is below {least} (one token and "
            f"{least - 1} speculative ones); raise it."
        )


def check_whole_prompts(settings: Settings, policy: Policy, config: Any) -> None:
    """Raises ConfigError when a policy that never splits a prompt could meet one that fits in no step."""
    most, length = config.scheduler_config.max_num_batched_tokens, config.model_config.max_model_len
    if policy.whole_prompts and most < length:
        raise ConfigError(
            f"The scheduler {settings.scheduler!r} never splits a prompt, so max_num_batched_tokens ({most}) must hold "
            f"the longest ({length}); raise --max-num-batched-tokens or lower --max-model-len."
        )
