"""``sarathi simulate`` behind its flags: one simulation or a sweep, results on disk, a table."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sarathi_plugin import plugins
from sarathi_plugin.config import CURVES, DEFAULT_CURVE, ConfigError, load_curve, load_yaml, make_settings
from sarathi_plugin.load.curve import write_curve
from sarathi_plugin.load.summary import summarise
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.outputs import make_folder, writing
from sarathi_plugin.simulate.build import check_engine
from sarathi_plugin.simulate.routing import make_router
from sarathi_plugin.simulate.run import Simulation, SimulationResult, simulate
from sarathi_plugin.simulate.spec import STOCK
from sarathi_plugin.simulate.sweep import sweep
from sarathi_plugin.simulate.targets import prefill_curve
from sarathi_plugin.simulate.variants import variants
from sarathi_plugin.steptime.profile import StepTimeProfile, read_profile
from sarathi_plugin.telemetry import parquet
from sarathi_plugin.workload.spec import load_workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sarathi_plugin.simulate.spec import EngineSpec
    from sarathi_plugin.workload.trace import Trace

COLUMNS = (
    "fluid",
    "TTFT P50",
    "TTFT P99",
    "TBT P50",
    "TBT P99",
    "tokens/s",
    "preempted",
    "steps",
    "virtual s",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The flags. engine: a YAML file of EngineSpec's fields; settings: on top of it; sweeps: KEY=A,B,C."""

    workload: str
    profile: str
    out: Path
    engine: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    sweeps: tuple[str, ...] = ()
    rate: float | None = None
    requests: int | None = None
    seed: int = 0
    replicas: int = 1
    router: str = "least-outstanding"
    workers: int | None = None
    ray_address: str | None = None
    steps: bool = True


def command(wanted: Wanted, *, say: Callable[[str], None]) -> None:
    """Simulate all variants, write ``out``, print the table. Raises ConfigError."""
    profile = read_profile(wanted.profile)
    trace = load_workload(wanted.workload).trace(wanted.rate, wanted.requests, wanted.seed)
    engines = engines_of(wanted)
    _check(wanted, profile, trace, [engine for _, engine in engines])
    make_folder(wanted.out)
    curve = _curve_for(profile, wanted.out)
    jobs = []
    for number, (label, engine) in enumerate(engines):
        judged = _with_curve(engine, curve)
        simulation = Simulation(
            profile=profile,
            engine=judged,
            trace=trace,
            targets=targets_of(judged, curve, trace),
            seed=wanted.seed,
            replicas=wanted.replicas,
            router=wanted.router,
            keep_steps=wanted.steps and judged.scheduler != STOCK,
        )
        jobs.append((label, wanted.out / f"{number:02d}", simulation))
    counted = "1 variant" if len(jobs) == 1 else f"{len(jobs)} variants"
    say(f"{len(trace.requests)} requests at {trace.rate:.3g}/s on {profile.name}, {counted}")
    rows, failed, lost = {}, [], []
    for done, (job, row) in enumerate(
        sweep(_one, jobs, workers=wanted.workers, ray_address=wanted.ray_address), 1
    ):
        if isinstance(row, ConfigError):
            failed.append(str(row) if len(jobs) == 1 else f"{job[0]}: {row}")
            say(f"{done}/{len(jobs)} {job[0]}: failed")
            continue
        rows[job[0]] = row
        lost += [row["lost"]] if row["lost"] else []
        say(f"{done}/{len(jobs)} {job[0]}: {row['x_real']:.0f} times real time, in {job[1]}")
    for line in table({label: rows[label] for label, _, _ in jobs if label in rows}) if rows else ():
        say(line)
    if failed or lost:
        raise ConfigError("\n".join([*failed, *lost[:1]]))


def _one(job: tuple[str, Path, Simulation]) -> dict[str, Any] | ConfigError:
    """Simulate one variant and write its folder; returns its row, with what could not be written under ``lost``.

    A variant whose simulation fails gives the failure: it takes nothing from the others.
    """
    import time

    label, folder, simulation = job
    begin = time.monotonic()
    try:
        result = simulate(simulation)
    except ConfigError as error:
        return error
    took = time.monotonic() - begin
    row = row_of(result)
    lost = ""
    try:
        _keep(folder, label, simulation, result, row)
    except ConfigError as error:
        lost = str(error)
    return row | {"x_real": row["virtual s"] / took, "lost": lost}


def _keep(
    folder: Path, label: str, simulation: Simulation, result: SimulationResult, row: dict[str, Any]
) -> None:
    """Write the folder of one variant. Raises ConfigError."""
    head = {
        "label": label,
        "profile": simulation.profile.name,
        "engine": simulation.engine.model_dump(mode="json", exclude_defaults=True),
        "seed": simulation.seed,
        "replicas": simulation.replicas,
        "router": simulation.router,
        "summary": row,
    }
    with writing(folder):
        folder.mkdir(exist_ok=True)
        (folder / "summary.json").write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
        parquet.write_timelines(folder / "timelines.parquet", result.timelines)
        if simulation.keep_steps:
            parquet.write_steps(folder / "steps.parquet", result.steps)


def engines_of(wanted: Wanted) -> list[tuple[str, EngineSpec]]:
    """(label, engine) of every variant. Raises ConfigError."""
    base = load_yaml(str(wanted.engine)) if wanted.engine else {}
    base |= {key: value for key, value in wanted.settings.items() if value is not None}
    return variants(base, wanted.sweeps, str(wanted.engine or "engine"))


def _check(wanted: Wanted, profile: StepTimeProfile, trace: Trace, engines: Sequence[EngineSpec]) -> None:
    """Everything that can be told before anything is written or runs. Raises ConfigError."""
    make_router(wanted.router)
    for engine in engines:
        targets_of(engine, DEFAULT_CURVE, trace)
        trace.checked(engine.model_length(profile))
        check_engine(engine, profile)


def _curve_for(profile: StepTimeProfile, out: Path) -> str:
    """The name of the profile's shipped prefill curve, or the path of one computed now."""
    if (CURVES / f"{profile.name}.json").is_file():
        return profile.name
    path = out / "prefill-curve.json"
    write_curve(path, prefill_curve(profile))
    return str(path)


def _with_curve(engine: EngineSpec, curve: str) -> EngineSpec:
    if engine.scheduler == STOCK or "prefill_curve" in engine.sarathi:
        return engine
    return engine.model_copy(update={"sarathi": {**engine.sarathi, "prefill_curve": curve}})


def targets_of(engine: EngineSpec, curve: str, trace: Trace) -> Targets:
    """What the requests are judged by: the engine's own classes. Raises ConfigError for a class it does not know."""
    settings = make_settings() if engine.scheduler == STOCK else engine.settings()
    classes = plugins.make_slo_classes(settings, plugins.build_plugin_manager(settings.plugins))
    for request in trace.requests:
        if request.slo_class and request.slo_class not in classes:
            raise ConfigError(
                f"The workload asks for the SLO class {request.slo_class!r}, which the engine does not know; define it "
                "under sarathi: classes: in the file of --engine."
            )
    name = curve if engine.scheduler == STOCK else settings.prefill_curve
    return Targets(classes[settings.default_class], load_curve(name), classes)


def row_of(result: SimulationResult) -> dict[str, Any]:
    """The figures of one simulation; times in seconds."""
    summary = summarise(result.timelines)
    seconds = {
        name: None if value is None else value / 1e9
        for name, value in (
            ("TTFT P50", summary.ttft_p50_ns),
            ("TTFT P99", summary.ttft_p99_ns),
            ("TBT P50", summary.tbt_p50_ns),
            ("TBT P99", summary.tbt_p99_ns),
        )
    }
    return {
        "fluid": summary.fluid_share,
        **seconds,
        "tokens/s": summary.tokens_per_s,
        "preempted": sum(engine.preemptions for engine in result.engines),
        "steps": sum(engine.steps for engine in result.engines),
        "virtual s": max(engine.span_ns for engine in result.engines) / 1e9,
        "requests": summary.requests,
        "errors": summary.errors,
        "fluidity_index": summary.fluidity_index,
    }


def table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """The rows as lines of text."""

    def cell(name: str, value: Any) -> str:
        if value is None:
            return "-"
        if name == "fluid":
            return f"{value:.1%}"
        if name.startswith("T"):
            return f"{value:.3f} s"
        return f"{value:,.0f}"

    width = max([len(label) for label in rows] + [10])
    lines = [" " * width + "".join(f"{name:>11}" for name in COLUMNS)]
    for label, row in rows.items():
        lines.append(f"{label:<{width}}" + "".join(f"{cell(name, row[name]):>11}" for name in COLUMNS))
    return lines
