"""``sarathi capacity`` behind its flags: on a simulated machine, a running server, or one started for it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sarathi_plugin.config import ConfigError, explain, load_yaml
from sarathi_plugin.outputs import check_file, writing
from sarathi_plugin.search.attempts import answered, raise_first
from sarathi_plugin.search.criteria import make_criterion
from sarathi_plugin.search.promise import Promise
from sarathi_plugin.workload.spec import load_workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sarathi_plugin.search.attempts import Answer
    from sarathi_plugin.search.criteria import Criterion
    from sarathi_plugin.search.repeats import Repeated
    from sarathi_plugin.workload.spec import WorkloadSpec

DEFAULT_SCHEDULERS = "sarathi"
REQUESTS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The flags. where: a step-time profile, a URL, or a YAML file of a server to start.

    schedulers: separated by commas. engine: a YAML file of engine arguments. limits: KEY=NUMBER of the criterion.
    replicas_for: requests per second, or ``trace`` for the arrivals of the workload itself.
    """

    where: str
    workload: str
    schedulers: str | None = None
    engine: Path | None = None
    slo: Path | None = None
    tbt_ms: float | None = None
    ttft_slack_ms: float | None = None
    criterion: str = "fluid"
    limits: tuple[str, ...] = ()
    requests: int | None = None
    repeats: int = 3
    seed: int = 0
    resolution: float = 0.03
    start: float | None = None
    replicas: int = 1
    router: str = "least-outstanding"
    replicas_for: str | None = None
    workers: int | None = None
    ray_address: str | None = None
    as_json: bool = False
    out: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The flags, read and checked."""

    wanted: Wanted
    workload: WorkloadSpec
    criterion: Criterion
    promise: Promise
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """One a repeat."""
        return list(range(self.wanted.seed, self.wanted.seed + self.wanted.repeats))

    @property
    def requests(self) -> int | None:
        """Of a run: as given, as the workload says, else ``REQUESTS`` of a kind and all of a trace."""
        if self.wanted.requests is not None or self.workload.requests is not None:
            return self.wanted.requests or self.workload.requests
        return REQUESTS if self.workload.kind else None


def read_task(wanted: Wanted) -> Task:
    """Everything that can be checked before anything slow is imported. Raises ConfigError."""
    if wanted.repeats < 1 or not wanted.resolution > 0:
        raise ConfigError("A capacity search needs at least one repeat and a resolution above zero.")
    if wanted.start is not None and not 0 < wanted.start < math.inf:
        raise ConfigError(f"Rates are above zero: --start {wanted.start:g} is not.")
    data = load_yaml(str(wanted.slo)) if wanted.slo else {}
    data |= {
        key: value
        for key, value in (("tbt_ms", wanted.tbt_ms), ("ttft_slack_ms", wanted.ttft_slack_ms))
        if value is not None
    }
    curve = data.get("prefill_curve")
    if wanted.slo and isinstance(curve, str) and (wanted.slo.parent / curve).is_file():
        data["prefill_curve"] = str((wanted.slo.parent / curve).resolve())
    try:
        promise = Promise.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, str(wanted.slo or "promise"), Promise)) from error
    promise.targets()
    return Task(
        wanted=wanted,
        workload=load_workload(wanted.workload),
        criterion=make_criterion(wanted.criterion, wanted.limits),
        promise=promise,
        settings=load_yaml(str(wanted.engine)) if wanted.engine else {},
    )


def is_url(where: str) -> bool:
    """Whether it is a running server."""
    return "://" in where


def is_server_file(where: str) -> bool:
    """Whether it is a server to start."""
    return where.endswith((".yaml", ".yml"))


def check(task: Task) -> None:
    """Flags that contradict each other, name nothing, or name what cannot be written. Raises ConfigError."""
    wanted = task.wanted
    if wanted.schedulers is not None and not schedulers_of(task):
        raise ConfigError("Name at least one scheduler after --scheduler, or leave it out.")
    if wanted.out is not None:
        check_file(wanted.out)
    live = is_url(wanted.where) or is_server_file(wanted.where)
    if not live:
        return
    simulated = [
        ("--engine", wanted.engine), ("--replicas", wanted.replicas > 1), ("--replicas-for", wanted.replicas_for),
        ("--ray-address", wanted.ray_address), ("--workers", wanted.workers),
    ]  # fmt: skip
    for flag, value in simulated:
        if value:
            raise ConfigError(f"{flag} is for simulated machines; leave it out, or give a step-time profile.")
    if is_url(wanted.where) and wanted.schedulers:
        raise ConfigError(
            "A running server has the scheduler it was started with; leave --scheduler out, or give a server file."
        )


def command(
    wanted: Wanted, *, say: Callable[[str], None], write: Callable[[str], None], quiet: Callable[[], None]
) -> None:
    """Search and report. say: progress; write: the answer; quiet: called before vLLM is imported.

    Raises ConfigError for bad input and policies that fail, ServerError when a server fails; after the answer about
    the other schedulers, if there is one.
    """
    task = read_task(wanted)
    check(task)
    if is_url(wanted.where):
        from sarathi_plugin.search.live_capacity import running

        answers: list[Answer] = [running(task, say=say)]
    elif is_server_file(wanted.where):
        from sarathi_plugin.search.live_capacity import started

        answers = started(task, say=say)
    else:
        from sarathi_plugin.steptime.profile import read_profile

        try:
            read_profile(wanted.where)
        except ConfigError as error:
            raise ConfigError(f"{error} A running server is given as http://HOST:PORT.") from error
        quiet()
        from sarathi_plugin.search.simulated_capacity import replicas_needed, simulated

        answers = replicas_needed(task, say=say) if wanted.replicas_for else simulated(task, say=say)
    results, failed = answered(answers)
    report = describe(task) | {"results": results, "failed": [one.as_data() for one in failed]}
    text = json.dumps(report, indent=1)
    write(text if wanted.as_json else "\n".join(lines_of(report)))
    if wanted.out is not None:
        with writing(wanted.out):
            wanted.out.write_text(text + "\n", encoding="utf-8")
    raise_first(failed)


def describe(task: Task) -> dict[str, Any]:
    """What was asked, for the record."""
    from sarathi_plugin import __version__

    criterion: Any = task.criterion
    return {
        "where": task.wanted.where,
        "workload": task.workload.model_dump(mode="json", exclude_defaults=True, by_alias=True),
        "requests": task.requests,
        "seeds": task.seeds,
        "other_traffic_by_seed": task.workload.varies,
        "criterion": criterion.model_dump(mode="json"),
        "promise": task.promise.model_dump(mode="json", exclude_defaults=True),
        "version": __version__,
    }


def result_of(label: str, repeated: Repeated, figures: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One configuration's answer as data. figures: of the run at the highest rate that passed."""
    return {"label": label, **more, **repeated.as_data(), "figures_at_capacity": figures}


def lines_of(report: dict[str, Any]) -> list[str]:
    """The answer for people: a line or two a configuration."""
    lines = []
    for result in report["results"]:
        lines += replica_lines(result) if "replicas_needed" in result else capacity_lines(result)
    if not report["other_traffic_by_seed"] and len(report["seeds"]) > 1:
        lines.append(
            "The trace is the same requests under every seed: intervals say nothing of other traffic."
        )
    return lines


def capacity_lines(result: dict[str, Any]) -> list[str]:
    """Capacity, interval, limit, and the figures at it."""
    rate, interval = result["requests_per_s"], result["interval_95"]
    least = "at least " if result["at_least"] else ""
    repeats = len(result["by_repeat"])
    spread = (
        f" (95 % {interval[0]:.3g} to {interval[1]:.3g}, {repeats} repeats)" if interval else " (one repeat)"
    )
    if result["below"] is None:
        found = f"{least}{rate:.3g} requests/s{spread}"
    else:
        found = f"below {result['below']:.3g} requests/s, the lowest rate tried (give a lower --start)"
    limits = [f"{limit['what']} ({limit['repeats']} of {repeats})" for limit in result["limits"]]
    lines = [f"{result['label']}: {found}; limit: {'; '.join(limits) or 'none met'}"]
    none = result["by_repeat"].count(0)
    if none and result["below"] is None:
        lines.append(
            f"  in {none} of {repeats} repeats no rate passed, which counts as 0: give a lower --start"
        )
    figures = result["figures_at_capacity"]
    if figures:
        lines.append(f"  at it: {figure_text(figures)}")
    marks = {mark for runs in result["runs"] for run in runs for mark in run["marks"]}
    lines += [f"  not to be trusted: {mark}" for mark in sorted(marks)[:1]]
    return lines


def figure_text(figures: dict[str, Any]) -> str:
    """The figures of one run in one line."""

    def second(name: str) -> str:
        value = figures[name]
        return "-" if value is None else f"{value:.3g}"

    rate = figures["fluid_token_rate"]
    curve = ", ".join(
        f"{ms:g} ms {index:.2f}" for ms, index in figures["acceptance_curve"] if ms in (25, 50, 100)
    )
    return (
        f"{figures['fluid_share']:.1%} fluid, index {figures['fluidity_index']:.3f}; TTFT P50/P99 "
        f"{second('ttft_p50_s')}/{second('ttft_p99_s')} s, TBT P50/P99 {second('tbt_p50_s')}/{second('tbt_p99_s')} s; "
        f"fluid token rate {'-' if rate is None else f'{rate:.3g}'}/s; accepted at {curve}"
    )


def replica_lines(result: dict[str, Any]) -> list[str]:
    """How many replicas, and what broke with one fewer."""
    needed, rate = result["replicas_needed"], result["rate"]
    if needed is None:
        return [
            f"{result['label']}: {result['most']} replicas do not carry {rate:.3g} requests/s: {result['reason']}"
        ]
    fewer = f"; {needed - 1}: {result['reason']}" if result["reason"] else ""
    return [
        f"{result['label']}: {needed} {'replica' if needed == 1 else 'replicas'} for {rate:.3g} requests/s{fewer}"
    ]


def schedulers_of(task: Task) -> Sequence[str | None]:
    """The schedulers asked for; None leaves the engine file's."""
    if task.wanted.schedulers is not None:
        names = (name.strip() for name in task.wanted.schedulers.split(","))
        return list(dict.fromkeys(name for name in names if name))
    return [None] if "scheduler" in task.settings else [DEFAULT_SCHEDULERS]
