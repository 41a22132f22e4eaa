"""How settings reach the engine: inside the name of the scheduler class.

vLLM resolves ``scheduler_cls="module.attribute"`` in the engine's process. The attribute asked of this module holds the
packed settings, so they survive spawned processes and several API servers, need no file or environment variable, and
stay out of vLLM's compile-cache key (``scheduler_cls`` is not hashed).
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any

from sarathi_plugin.config import Settings, make_settings

SEPARATOR = "__"


def scheduler_path(settings: Settings) -> str:
    """The ``scheduler_cls`` that stands for these settings."""
    if not settings.session:
        settings = settings.model_copy(update={"session": secrets.token_hex(6)})
    return f"{__name__}.{settings.scheduler}{SEPARATOR}{settings.encode()}"


def settings_of(scheduler_cls: object) -> Settings | None:
    """The settings inside a ``scheduler_cls``, None when it is not ours."""
    prefix = f"{__name__}."
    if not isinstance(scheduler_cls, str) or not scheduler_cls.startswith(prefix):
        return None
    return Settings.decode(scheduler_cls.removeprefix(prefix).partition(SEPARATOR)[2])


def engine_arguments(
    scheduler: str = "sarathi", *, config: str | None = None, **settings: Any
) -> dict[str, Any]:
    """Keyword arguments for ``LLM(...)``, ``EngineArgs(...)`` or ``AsyncEngineArgs(...)`` that select a policy.

    config: a YAML file; settings: fields of ``config.Settings`` (``tbt_ms``, ``token_budget``, ...), which win over it.
    Raises ConfigError.
    """
    return {"scheduler_cls": scheduler_path(make_settings(config, scheduler=scheduler, **settings))}


def __getattr__(name: str) -> Any:
    """vLLM asks for ``<policy>__<packed settings>``: answer with a scheduler factory."""
    if name.startswith("__") or SEPARATOR not in name:
        raise AttributeError(name)
    from sarathi_plugin.engine.scheduler import build_scheduler

    return partial(build_scheduler, settings=Settings.decode(name.partition(SEPARATOR)[2]))
