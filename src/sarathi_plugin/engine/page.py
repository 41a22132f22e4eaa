"""The ``vllm.endpoint_plugins`` entry point: the live page on vLLM's own API server.

vLLM loads it only where ``VLLM_PLUGINS`` names it, and our engines write what it shows only then.
"""

from __future__ import annotations

import atexit
import logging
import os
from typing import Any

from sarathi_plugin import __version__

ENTRY_POINT = "sarathi-page"
PATH = "/sarathi"

logger = logging.getLogger(__name__)


def page_wanted() -> bool:
    """Whether ``VLLM_PLUGINS`` names the page."""
    return ENTRY_POINT in os.environ.get("VLLM_PLUGINS", "").split(",")


def api_keys(args: Any) -> list[str]:
    """The keys that vLLM accepts: of the command line, else of the environment."""
    given = getattr(args, "api_key", None) or [os.environ.get("VLLM_API_KEY")]
    return [key for key in given if key]


class PagePlugin:
    """What vLLM asks of an endpoint plugin. A failure in it costs the page, never the service."""

    name = ENTRY_POINT
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._page: Any = None

    def attach_router(self, app: Any) -> None:
        """Add the routes."""
        from sarathi_plugin.engine.contract import log_beside_vllm
        from sarathi_plugin.telemetry.page.gate import Gate
        from sarathi_plugin.telemetry.page.routes import Page

        log_beside_vllm()
        try:
            self._page = Page(Gate(api_keys(app.state.args)))
            app.router.routes.extend(self._page.routes())
        except Exception:
            self._page = None
            logger.exception("The live page is off; serving goes on.")

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """The server has started: find its engines."""
        del state
        if self._page is None:
            return
        try:
            self._page.source = make_source(engine_client)
            atexit.register(self._page.source.close)
            logging.getLogger("uvicorn.access").addFilter(quiet)
            if not getattr(args, "uds", None):
                logger.info("Live page: http://%s:%s%s", args.host or "localhost", args.port, PATH)
        except Exception:
            logger.exception("The live page has no data; serving goes on.")


def make_source(engine_client: Any) -> Any:
    """Where the page's figures come from: the engines of this server."""
    from sarathi_plugin import plugins
    from sarathi_plugin.engine.contract import vllm_version
    from sarathi_plugin.engine.entry import settings_of
    from sarathi_plugin.telemetry.live.build import ServerFacts
    from sarathi_plugin.telemetry.live.source import LiveSource

    config = engine_client.vllm_config
    model = config.model_config.served_model_name
    settings = settings_of(config.scheduler_config.scheduler_cls)
    classes = plugins.make_slo_classes(settings, plugins.manager_for(settings)) if settings else {}
    facts = ServerFacts(
        model=model if isinstance(model, str) else str(model[0]),
        policy=settings.scheduler if settings else "",
        classes=tuple(classes.values()),
        plugin_version=__version__,
        vllm_version=vllm_version(),
        stock=settings is None,
    )
    return LiveSource(
        facts, settings.session if settings else "", engine_indexes(engine_client) if settings else []
    )


def engine_indexes(engine_client: Any) -> list[int]:
    """The engines this server sends requests to."""
    managed = getattr(getattr(engine_client, "engine_core", None), "engine_ranks_managed", None)
    if managed is not None:
        return list(managed)
    return list(range(engine_client.vllm_config.parallel_config.data_parallel_size))


def quiet(record: logging.LogRecord) -> bool:
    """Leave out of the access log what every viewer asks for every second, unless it was refused."""
    args = record.args
    if not isinstance(args, tuple) or len(args) < 5:
        return True
    return not (str(args[2]).startswith(f"{PATH}/api") and args[4] == 200)
