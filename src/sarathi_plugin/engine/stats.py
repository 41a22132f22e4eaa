"""Metrics on their way from the engine's process to Prometheus: one field on vLLM's SchedulerStats, one stat logger."""

from __future__ import annotations

import atexit
import dataclasses
import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from sarathi_plugin import __version__, plugins
from sarathi_plugin.config import Settings, load_curve
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.engine.contract import vllm_version
from sarathi_plugin.engine.page import page_wanted
from sarathi_plugin.telemetry.exporter import Exporter
from sarathi_plugin.telemetry.snapshot import Snapshot, snapshot_path

logger = logging.getLogger(__name__)

FIELD = "sarathi"
REFRESH_S = 0.25
"""How often an API server looks for overdue requests."""


@dataclass(frozen=True)
class EngineFacts:
    """What observers are told of the engine (``hookspecs.EngineInfo``)."""

    model_name: str
    engine_index: int
    policy: str
    slo_classes: tuple[str, ...]
    curve_digest: str
    plugin_settings: dict[str, dict[str, Any]]
    version: str
    vllm_version: str

    def describe(self) -> dict[str, Any]:
        """As plain data, for the head of a recording."""
        return dataclasses.asdict(self)


def extend_scheduler_stats() -> None:
    """Give SchedulerStats one more field, before anything encodes or decodes one. Safe to repeat.

    vLLM has no room for a plugin's statistics; a real dataclass field crosses the process border, an attribute or a
    subclass does not. A peer without the field ignores it.
    """
    from vllm.v1.metrics.stats import SchedulerStats

    fields = SchedulerStats.__dataclass_fields__
    if FIELD in fields:
        return
    # make_dataclass finishes the field (name, type, kind) as the decorator would have.
    donor = dataclasses.make_dataclass("_", [(FIELD, dict[str, Any] | None, None)])
    fields[FIELD] = dataclasses.fields(donor)[0]
    SchedulerStats.__annotations__[FIELD] = dict[str, Any] | None
    setattr(SchedulerStats, FIELD, None)


def install_stat_logger() -> None:
    """Make vLLM's logger manager add ours where the served scheduler is ours. Safe to repeat.

    An entry point would do the same for everybody who merely has the package installed, and switch statistics on
    against their wish.
    """
    from vllm.v1.metrics import loggers

    if getattr(loggers.StatLoggerManager.__init__, "sarathi", False):
        return
    original = loggers.StatLoggerManager.__init__

    def init(
        self: Any,
        vllm_config: Any,
        engine_idxs: Any = None,
        custom_stat_loggers: Any = None,
        *rest: Any,
        **named: Any,
    ) -> None:
        from sarathi_plugin.engine.entry import settings_of

        if settings_of(vllm_config.scheduler_config.scheduler_cls) is not None:
            custom_stat_loggers = [*(custom_stat_loggers or []), stat_logger_class()]
        original(self, vllm_config, engine_idxs, custom_stat_loggers, *rest, **named)

    init.sarathi = True  # type: ignore[attr-defined]
    loggers.StatLoggerManager.__init__ = init


_exporters: dict[str, Exporter] = {}


def exporter_for(model_name: str) -> Exporter:
    """The process's exporter; its families can be registered only once."""
    if not _exporters:
        _exporters[model_name] = Exporter(model_name)
    first = next(iter(_exporters.values()))
    return _exporters.setdefault(model_name, first.for_model(model_name))


def stat_logger_class() -> type:
    """Our stat logger, defined late: only API servers need vLLM's logger module."""
    from vllm.v1.metrics.loggers import AggregateStatLoggerBase

    class SarathiStatLogger(AggregateStatLoggerBase):
        """``record`` runs in the API server's output loop, where an exception would fail every request: none leaves."""

        def __init__(self, vllm_config: Any, engine_indexes: list[int]) -> None:
            self._bridge: Bridge | None = None
            try:
                self._bridge = Bridge(vllm_config, engine_indexes)
            except Exception:
                logger.exception("The plugin's metrics are off; serving goes on.")

        def record(
            self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
        ) -> None:
            del iteration_stats, mm_cache_stats
            message = getattr(scheduler_stats, FIELD, None)
            if message and self._bridge is not None:
                self._bridge.apply(message, engine_idx)

        def log_engine_initialized(self) -> None:
            """Nothing to say."""

    return SarathiStatLogger


class Bridge:
    """Applies engine messages, and refreshes the overdue gauges from shared memory in a thread of its own."""

    def __init__(self, vllm_config: Any, engine_indexes: list[int]) -> None:
        from sarathi_plugin.engine.entry import settings_of

        settings = settings_of(vllm_config.scheduler_config.scheduler_cls)
        if settings is None:
            raise ValueError("not one of our schedulers")
        self._settings: Settings = settings
        self._engines = list(engine_indexes)
        classes = plugins.make_slo_classes(settings, plugins.manager_for(settings))
        self._classes = list(classes)
        self._snapshots: dict[int, Snapshot] = {}
        self._complained = False
        self._exporter = exporter_for(str(vllm_config.model_config.served_model_name))
        build = {
            "version": __version__,
            "vllm_version": vllm_version(),
            "policy": settings.scheduler,
            "slo": settings.slo,
            "curve": load_curve(settings.prefill_curve).digest,
        }
        known = {
            "slo_class": self._classes,
            "plugin": plugins.observer_names(settings, live=page_wanted()),
            "tbt_ms": [f"{target:g}" for target in settings.curve_targets_ms],
        }
        for engine in self._engines:
            self._exporter.start(engine, known, build)
            self._exporter.set("start_time_seconds", engine, round(time.time()))
            for slo in classes.values():
                self._exporter.set("slo_tbt_seconds", engine, slo.tbt_ns / NS_PER_S, (slo.name,))
        # vLLM kills an engine that does not stop at once, so the file may be left to us.
        atexit.register(self._remove_snapshots)
        threading.Thread(target=self._watch, name="sarathi-overdue", daemon=True).start()

    def apply(self, message: Any, engine: int) -> None:
        """Take one engine message; never raises."""
        try:
            self._exporter.apply(message, engine)
        except Exception:
            self._complain("applying an engine message")

    def _watch(self) -> None:
        while True:
            time.sleep(REFRESH_S)
            try:
                for engine in self._engines:
                    self._refresh(engine)
            except Exception:
                self._complain("reading live deadlines")

    def _refresh(self, engine: int) -> None:
        snapshot = self._snapshots.get(engine) or Snapshot.open(snapshot_path(self._settings.session, engine))
        if snapshot is None:
            return
        self._snapshots[engine] = snapshot
        now = time.monotonic_ns()
        overdue = snapshot.overdue(now, len(self._classes))
        for name, found in zip(self._classes, overdue, strict=True):
            self._exporter.set("requests_overdue", engine, found.count, (name,))
            self._exporter.set("oldest_overdue_seconds", engine, found.oldest_ns / NS_PER_S, (name,))
        longest = snapshot.longest_stall_ns(now) / NS_PER_S
        self._exporter.set("longest_stall_last_minute_seconds", engine, longest)

    def _remove_snapshots(self) -> None:
        for snapshot in self._snapshots.values():
            snapshot.close()

    def _complain(self, doing: str) -> None:
        if not self._complained:
            self._complained = True
            logger.exception("The plugin failed at %s; its metrics may be incomplete.", doing)
