"""vLLM's own schedulers with a driver beside them: every method calls ``super()``, nothing of vLLM's loop is copied."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from sarathi_plugin import __version__, plugins
from sarathi_plugin.config import ConfigError, Settings, load_curve
from sarathi_plugin.engine import contract, stats
from sarathi_plugin.engine.driver import Driver
from sarathi_plugin.engine.facts import engine_facts, model_facts
from sarathi_plugin.engine.journal import Journal
from sarathi_plugin.engine.page import page_wanted
from sarathi_plugin.engine.parts import Clock, Parts
from sarathi_plugin.steptime.machine import online_from
from sarathi_plugin.steptime.online import OnlineModel
from sarathi_plugin.steptime.profile import read_profile
from sarathi_plugin.telemetry.buffer import MetricBuffer
from sarathi_plugin.telemetry.live import layout
from sarathi_plugin.telemetry.live.writer import LiveWriter
from sarathi_plugin.telemetry.recorder import Recorder
from sarathi_plugin.telemetry.snapshot import Snapshot, remove_stale_snapshots, snapshot_path
from sarathi_plugin.telemetry.table import RequestTable
from sarathi_plugin.telemetry.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sarathi_plugin.core import StepTimeModel

logger = logging.getLogger(__name__)


class SarathiMixin:
    """The four methods at which the plugin takes part. Combined with one of vLLM's schedulers below."""

    sarathi: Driver
    _stop: Any

    def attach(self, driver: Driver, stop: Any) -> None:
        """Connect the driver; ``stop()`` closes what it opened."""
        self.sarathi = driver
        self._stop = stop

    def add_request(self, request: Any) -> None:
        """Track the request, then queue it."""
        self.sarathi.add(request)
        super().add_request(request)  # type: ignore[misc]

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """One stock scheduling pass under the policy's levers."""
        self.sarathi.before_schedule()
        try:
            output = super().schedule(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.sarathi.restore()
        self.sarathi.after_schedule(output)
        return output

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Tokens exist from the moment this is called; vLLM's own work on them comes first all the same."""
        now_ns = self.sarathi.now_ns()
        results = super().update_from_output(scheduler_output, model_runner_output)  # type: ignore[misc]
        self.sarathi.after_update(scheduler_output, results, now_ns)
        return results

    def finish_requests(self, request_ids: Any, finished_status: Any) -> Any:
        """Aborts, errors and shutdown."""
        if request_ids is not None:
            request_ids = (request_ids,) if isinstance(request_ids, str) else tuple(request_ids)
        finished = super().finish_requests(request_ids, finished_status)  # type: ignore[misc]
        self.sarathi.finished(request_ids, finished_status)
        return finished

    def shutdown(self) -> None:
        """Close the plugin's files, then vLLM's."""
        self._stop()
        super().shutdown()  # type: ignore[misc]


class SarathiAsyncScheduler(SarathiMixin, AsyncScheduler):
    """For async scheduling, vLLM's default on GPUs."""


class SarathiSyncScheduler(SarathiMixin, Scheduler):
    """For synchronous scheduling."""


def build_scheduler(
    *,
    settings: Settings,
    clock: Clock | None = None,
    observers: Mapping[str, object] | None = None,
    **arguments: Any,
) -> Any:
    """What ``EngineCore`` calls in place of a scheduler class: the scheduler for these settings.

    observers: plugins by name to use in place of the metrics tracker and the recorder (a simulation keeps its own
    books). arguments: as vLLM passes them to its own scheduler classes. Raises ConfigError when the settings or this
    vLLM do not fit; after this nothing raises.
    """
    vllm_config = arguments["vllm_config"]
    asynchronous = vllm_config.scheduler_config.async_scheduling
    scheduler = (SarathiAsyncScheduler if asynchronous else SarathiSyncScheduler)(**arguments)
    contract.log_beside_vllm()
    version = contract.vllm_version()
    contract.check_version(version)
    contract.check_scheduler(scheduler, version)
    stats.extend_scheduler_stats()
    driver, stop = build_driver(scheduler, settings, clock or Clock(), observers)
    scheduler.attach(driver, stop)
    logger.info(
        "Scheduling by %r (%s), SLO meaning %r.", settings.scheduler, type(scheduler).__name__, settings.slo
    )
    return scheduler


def build_driver(
    scheduler: Any, settings: Settings, clock: Clock, given: Mapping[str, object] | None = None
) -> tuple[Driver, Any]:
    """The driver with its policy, model and observers; and how to stop them. Raises ConfigError."""
    manager = plugins.manager_for(settings)
    policy = plugins.make_policy(settings, manager)
    model = make_model(scheduler, settings, manager)
    classes = plugins.make_slo_classes(settings, manager)
    info = describe_engine(scheduler, settings, tuple(classes))
    snapshot = open_snapshot(settings.session, info.engine_index)
    buffer = MetricBuffer()
    live = make_live(scheduler, settings, info)
    if given is None:
        targets = [round(target * 1e6) for target in settings.curve_targets_ms]
        given = {plugins.TRACKER: Tracker(buffer, snapshot, list(classes.values()), targets)}
    recorder = make_recorder(scheduler, settings, info, model)
    ours = {plugins.RECORDER: recorder, plugins.LIVE: live}
    for name, plugin in {**given, **{name: plugin for name, plugin in ours.items() if plugin}}.items():
        plugins.register_plugin(manager, plugin, name)
    observers = plugins.Observers(
        manager,
        lambda name: buffer.add("plugin_errors", 1, (name,)),
        lambda name: buffer.set("plugin_enabled", 0, (name,)),
    )
    readers = {impl.plugin_name for impl in manager.hook.request_finished.get_hookimpls()}
    table = RequestTable(
        list(classes.values()),
        load_curve(settings.prefill_curve),
        snapshot,
        keep_tokens=bool(readers - {plugins.TRACKER, plugins.LIVE}),
        count_gaps=getattr(policy, "slo", None) == "gap",
    )
    default = classes[settings.default_class]
    journal = Journal(recorder.note) if recorder else None
    parts = Parts(policy, model, table, buffer, observers, default, clock, journal, live)
    observers.call("engine_started", info=info)

    driver = Driver(scheduler, parts)

    def stop() -> None:
        driver.flush()
        observers.call("engine_stopping")
        snapshot.close()

    return driver, stop


def make_model(scheduler: Any, settings: Settings, manager: Any) -> StepTimeModel:
    """The step-time model, from a profile where one is given. Raises ConfigError, also for another model's profile."""
    if not settings.step_time_profile:
        return plugins.make_step_time_model(settings, manager)
    profile = read_profile(settings.step_time_profile)
    served = model_facts(scheduler.vllm_config)
    for fact in ("layers", "hidden_size", "heads", "kv_heads"):
        theirs = getattr(profile.model, fact)
        if theirs != served[fact]:
            raise ConfigError(
                f"The step-time profile {settings.step_time_profile} is of {profile.model.name} ({fact} {theirs}), "
                f"and {served['name']} is served ({fact} {served[fact]}); fit one to a recording of this server."
            )
    return online_from(profile)


def describe_engine(scheduler: Any, settings: Settings, classes: tuple[str, ...]) -> stats.EngineFacts:
    """What observers are told."""
    config = scheduler.vllm_config
    return stats.EngineFacts(
        model_name=str(config.model_config.served_model_name),
        engine_index=getattr(config.parallel_config, "data_parallel_index", 0),
        policy=settings.scheduler,
        slo_classes=classes,
        curve_digest=load_curve(settings.prefill_curve).digest,
        plugin_settings=settings.plugin_settings,
        version=__version__,
        vllm_version=contract.vllm_version(),
    )


def make_recorder(
    scheduler: Any, settings: Settings, info: stats.EngineFacts, model: StepTimeModel
) -> Recorder | None:
    """The recorder the settings ask for; its head holds all that a simulation of this engine needs."""
    if not settings.record:
        return None
    head = {
        **info.describe(),
        "settings": settings.model_dump(mode="json", exclude_defaults=True, exclude={"session", "record"}),
        "engine": engine_facts(scheduler),
        "model": model_facts(scheduler.vllm_config),
        "model_state": model.state() if isinstance(model, OnlineModel) else None,
    }
    return Recorder(settings.record, info.engine_index, head, model, int(time.time()))


def make_live(scheduler: Any, settings: Settings, info: stats.EngineFacts) -> LiveWriter | None:
    """The writer behind the live page, where the page was asked for."""
    if not (settings.session and page_wanted()):
        return None
    path = layout.live_path(settings.session, info.engine_index)
    try:
        layout.remove_stale()
        columns = layout.create(path, len(info.slo_classes))
    except OSError as error:
        logger.warning("No shared memory for the live page (%s): it will say so.", error)
        return None
    blocks = getattr(scheduler.kv_cache_manager.block_pool, "num_gpu_blocks", 0)
    return LiveWriter(columns, path, info.slo_classes, time.monotonic_ns(), blocks)


def open_snapshot(session: str, engine_index: int) -> Snapshot:
    """Shared columns where a server reads them; private ones otherwise, or when the file system refuses."""
    if not session:
        return Snapshot.private()
    try:
        remove_stale_snapshots()
        return Snapshot.create(snapshot_path(session, engine_index))
    except OSError as error:
        logger.warning("No shared memory for live deadlines (%s): overdue gauges stay at 0.", error)
        return Snapshot.private()
