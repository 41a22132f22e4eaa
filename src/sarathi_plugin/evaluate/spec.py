"""An experiment as a person writes it down: arms, workloads, loads, deadlines, seeds, repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from sarathi_plugin.config import ConfigError, SloClassSettings, Strict, explain, load_yaml
from sarathi_plugin.evaluate.metrics import CAPACITY, METRICS

if TYPE_CHECKING:
    from pathlib import Path

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=60)]
Seed = Annotated[int, Field(ge=0)]
Load = Annotated[float, Field(gt=0)]


class Knob(Strict):
    """What tuning may set one setting to: one of ``choices``, or a number between ``low`` and ``high``."""

    choices: list[int | float | bool | str | None] | None = Field(default=None, min_length=1)
    low: float | None = None
    high: float | None = None
    log: bool = Field(default=False, description="Search low to high on a logarithmic scale.")
    whole: bool = Field(default=False, description="Whole numbers only.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        ranged = self.low is not None and self.high is not None
        if (self.choices is None) != ranged or (self.choices is not None and self.low is not None):
            raise ValueError("give choices, or low and high")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError("low must be below high")
        if self.log and (self.low is None or self.low <= 0):
            raise ValueError("log needs low above zero")
        return self


class ArmSpec(Strict):
    """One configuration in the comparison."""

    name: Name
    scheduler: str = Field(
        default="stock", description="A policy, or stock: vLLM's own class, nothing of ours."
    )
    engine: dict[str, Any] = Field(
        default_factory=dict, description="Engine arguments, on top of the common ones."
    )
    sarathi: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the plugin, on top of the common."
    )
    flags: list[str] = Field(default_factory=list, description="Further flags of vllm serve (live only).")
    url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="A server that already runs, instead of starting one (live).",
    )
    profile: str | None = Field(
        default=None, description="Another machine than the common one (simulated only)."
    )
    tune: bool = Field(default=False, description="Tune before comparing.")
    knobs: dict[str, Knob] | None = Field(
        default=None, min_length=1, description="What to tune; the usual knobs of its scheduler when unset."
    )


class WorkloadCase(Strict):
    """Traffic, and the loads it is run at."""

    name: Name
    source: str = Field(description="A kind of traffic by name, or a workload file.")
    prompt_scale: float = Field(default=1.0, gt=0, description="Multiplies prompt lengths.")
    output_scale: float = Field(default=1.0, gt=0, description="Multiplies output lengths.")
    loads: list[Load] = Field(min_length=1, description="Arrival rates, requests per second.")
    requests: int = Field(default=200, ge=10, description="Judged requests of a run.")
    warm_up: int = Field(default=10, ge=0, description="Requests sent before these in each run, not judged.")

    @field_validator("loads")
    @classmethod
    def _differ(cls, value: list[float]) -> list[float]:
        if len(set(value)) < len(value):
            raise ValueError("a load is named twice")
        if len({f"{load:g}" for load in value}) < len(value):
            raise ValueError("two loads are alike in their first six digits")
        return value


class LiveSpec(Strict):
    """How servers are started."""

    model: str = Field(default="tiny", description="tiny, smollm2, or a model as in vllm serve MODEL.")
    flags: list[str] = Field(default_factory=list, description="Flags of vllm serve for every arm.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment of every server.")
    client_cores: list[int] = Field(
        default_factory=list, description="Cores for client and servers' front ends; any when empty."
    )
    start_timeout_s: float = Field(default=300, gt=0, description="Longest start of a server.")
    request_timeout_s: float = Field(default=600, gt=0, description="Longest request.")


class TuneSpec(Strict):
    """The same search for every arm that is tuned, in the simulator."""

    trials: int = Field(default=20, ge=2, description="Configurations tried for each tuned arm.")
    seeds: list[Seed] = Field(default=[0], min_length=1, description="Traffic to tune on; never compared on.")
    requests: int = Field(default=200, ge=10, description="Requests of a simulated run.")
    load_share: float = Field(
        default=1.0,
        gt=0,
        description="Loads to tune at, as a share of those compared at: below 1 for a profile of a slower machine.",
    )
    sampler_seed: Seed = Field(default=0, description="Of the search itself.")


class CapacitySpec(Strict):
    """Also search the fluid capacity of every arm (simulated only)."""

    requests: int = Field(default=400, ge=50, description="Requests of each run of the search.")
    resolution: float = Field(
        default=0.02, gt=0, lt=0.5, description="Where bisection stops, a share of the rate."
    )
    share: float = Field(default=0.99, gt=0, le=1, description="Share of requests that must be fluid.")


class Experiment(Strict):
    """Everything that is asked for."""

    name: str = Field(min_length=1, max_length=120)
    mode: Literal["live", "simulated"] = "simulated"
    profile: str = Field(default="cpu-fast-model", description="Step-time profile of the simulator.")
    prefill_curve: str | None = Field(default=None, description="Of all arms; the profile's own when unset.")
    classes: dict[str, SloClassSettings] = Field(
        min_length=1, description="SLO classes; the first is the default."
    )
    engine: dict[str, Any] = Field(default_factory=dict, description="Engine arguments of all arms.")
    live: LiveSpec = LiveSpec()
    arms: list[ArmSpec] = Field(min_length=2)
    subject: str = Field(description="The arm that the answer is about.")
    baseline: str = Field(description="The arm it is compared with.")
    ablations: bool | list[str] = Field(
        default=False, description="Add arms that leave one thing of the subject out: all, or these by name."
    )
    metric: str = Field(default="fluid_share", description="What the answer is about.")
    workloads: list[WorkloadCase] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1, description="Traffic to compare on.")
    repeats: int = Field(default=1, ge=1, description="Runs of the same traffic.")
    tune: TuneSpec | None = None
    capacity: CapacitySpec | None = None
    budget_minutes: float | None = Field(
        default=None, gt=0, description="Refuse a plan that is expected to take longer."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_names()
        self._check_tuning()
        live = self.mode == "live"
        for arm in self.arms:
            if arm.knobs and not arm.tune:
                raise ValueError(f"arm {arm.name!r} has knobs, but is not to be tuned: add tune: true")
            if arm.url and not live:
                raise ValueError(f"arm {arm.name!r} has a url, but the mode is simulated")
            if arm.profile and live:
                raise ValueError(f"arm {arm.name!r} has a profile, but the mode is live")
            if arm.url and (arm.engine or arm.flags or arm.sarathi or arm.tune):
                raise ValueError(
                    f"arm {arm.name!r} is a running server: its engine, flags, sarathi and tune are its own"
                )
        if self.capacity and live:
            raise ValueError(
                "capacity is searched in simulated mode only; for a live server use sarathi capacity"
            )
        if self.metric == CAPACITY and not self.capacity:
            raise ValueError("the metric is capacity, but there is no capacity section")
        return self

    def _check_names(self) -> None:
        for what, names in (
            ("arms", [arm.name for arm in self.arms]),
            ("workloads", [case.name for case in self.workloads]),
            ("seeds", self.seeds),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"two {what} are the same")
        known = {arm.name for arm in self.arms}
        for role, name in (("subject", self.subject), ("baseline", self.baseline)):
            if name not in known:
                raise ValueError(f"{role}: there is no arm {name!r}; arms: {', '.join(sorted(known))}")
        if self.subject == self.baseline:
            raise ValueError("subject and baseline are the same arm")
        if self.metric not in METRICS:
            raise ValueError(f"metric: there is no {self.metric!r}; use one of {', '.join(METRICS)}")

    def _check_tuning(self) -> None:
        tuned = [arm.name for arm in self.arms if arm.tune]
        if tuned and self.tune is None:
            raise ValueError(f"arm {tuned[0]!r} is to be tuned, but there is no tune section")
        if self.tune and not tuned:
            raise ValueError("there is a tune section, but no arm with tune: true")
        if self.tune and (both := set(self.tune.seeds) & set(self.seeds)):
            raise ValueError(f"seed {min(both)} is both tuned on and compared on; use other seeds to compare")

    def workload(self, name: str) -> WorkloadCase:
        """A workload by its name."""
        return next(case for case in self.workloads if case.name == name)


def load_experiment(path: Path, **changes: Any) -> Experiment:
    """An experiment from YAML, with ``changes`` on top; files it names are relative to it. Raises ConfigError."""
    data = load_yaml(str(path)) | changes
    for key in ("workloads", "arms"):
        listed = data.get(key)
        for holder in (data, *(listed if isinstance(listed, list) else ())):
            for name in ("source", "profile", "prefill_curve"):
                if isinstance(holder, dict) and isinstance(holder.get(name), str):
                    holder[name] = _beside(path, holder[name])
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, str(path), Experiment)) from error


def _beside(path: Path, name: str) -> str:
    found = path.parent / name
    return str(found.resolve()) if found.is_file() else name
