"""What ``sarathi search`` searches: a YAML file of engines, machines and numbers of replicas, prices and a promise."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from sarathi_plugin import plugins
from sarathi_plugin.config import ConfigError, Strict, explain, load_yaml
from sarathi_plugin.search.criteria import AnyCriterion, Fluid
from sarathi_plugin.search.promise import Promise
from sarathi_plugin.steptime.profile import read_profile
from sarathi_plugin.workload.spec import WorkloadSpec, load_workload

if TYPE_CHECKING:
    from collections.abc import Iterator

STOCK = "stock"
SETTING = "sarathi."
FIXED_BUDGET = ("sarathi-static", "alternate")
"""Policies with a token budget of their own, which then is the engine's too."""

Config = dict[str, Any]
"""A value for every dimension that applies, by its key."""


class Space(Strict):
    """Values to choose from, a list for each dimension; one that is not named keeps the engine's default."""

    profile: list[str] = Field(
        min_length=1, description="Step-time profiles: the hardware, the model and its tensor parallelism."
    )
    scheduler: list[str] = Field(default=["sarathi"], min_length=1, description="Policies, or stock.")
    max_num_batched_tokens: list[int | None] = Field(
        default=[None],
        min_length=1,
        description="Most tokens a step; null: the policy's own, or vLLM's default.",
    )
    max_num_seqs: list[int] = Field(default=[256], min_length=1, description="Most running requests.")
    kv_cache_gb: list[float | None] = Field(
        default=[None], min_length=1, description="KV memory of a device, GB; null: what is left."
    )
    pipeline_parallel_size: list[int] = Field(default=[1], min_length=1, description="Pipeline stages.")
    long_prefill_token_threshold: list[int] = Field(
        default=[0], min_length=1, description="Longest chunk of one prompt; 0: any."
    )
    replicas: list[int] = Field(default=[1], min_length=1, description="Engines behind a router.")
    sarathi: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="Settings of the plugin (slo, tbt_ms, ttft_slack_ms) and, as policy.FIELD, of the policies.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in (
            "max_num_batched_tokens",
            "max_num_seqs",
            "kv_cache_gb",
            "pipeline_parallel_size",
            "replicas",
        ):
            if any(value is not None and value <= 0 for value in getattr(self, key)):
                raise ValueError(f"{key} must hold numbers above zero")
        for key, values in self.sarathi.items():
            if not values:
                raise ValueError(f"sarathi.{key} needs at least one value")
        return self

    def dimensions(self) -> dict[str, list[Any]]:
        """Key -> values, in a fixed order; settings of the plugin as ``sarathi.KEY``."""
        own = {name: list(getattr(self, name)) for name in type(self).model_fields if name != "sarathi"}
        return own | {SETTING + key: values for key, values in self.sarathi.items()}


class Serve(Strict):
    """The server that the winner is written for and verified on."""

    model: str = Field(description="As in vllm serve MODEL.")
    args: list[str] = Field(default_factory=list, description="More arguments of vllm serve, alike for all.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables of the server.")
    client_cores: list[int] = Field(
        default_factory=list, description="Cores for client and server's front end; any when empty."
    )


class SearchFile(Strict):
    """A search as a person writes it down."""

    workload: Annotated[
        Annotated[str, Tag("name")] | Annotated[WorkloadSpec, Tag("written out")],
        Discriminator(lambda value: "name" if isinstance(value, str) else "written out"),
    ] = Field(description="A kind, a workload file, or a workload written out.")
    requests: int = Field(default=200, ge=10, description="Requests of a run.")
    rate: float | None = Field(
        default=None,
        gt=0,
        description="Requests per second that the deployment must carry; unset: the capacity is sought.",
    )
    criterion: AnyCriterion = Field(default_factory=Fluid, description="When a run passes.")
    promise: Promise = Field(default_factory=Promise, description="What requests are judged by.")
    space: Space
    engine: dict[str, Any] = Field(default_factory=dict, description="Engine arguments alike for all.")
    router: str = Field(default="least-outstanding", description="In front of several replicas.")
    prices: dict[str, float] = Field(
        default_factory=dict, description="Price of a device-hour by profile, or by a part of its name."
    )
    trials: int = Field(default=120, ge=1, description="Different configurations to try at most.")
    minutes: float = Field(default=10, gt=0, description="No new configuration after so long.")
    finals: int = Field(
        default=4, ge=1, description="Best configurations tried again, finer, with other seeds."
    )
    repeats: int = Field(default=3, ge=1, description="Seeds of the finals.")
    hopeless: float = Field(
        default=0.6,
        gt=0,
        lt=1,
        description="Given up at once: what cannot carry this share of the best load for its cost so far.",
    )
    seed: int = Field(default=0, ge=0, description="Of the traffic, the noise and the search itself.")
    serve: Serve | None = None

    def the_workload(self) -> WorkloadSpec:
        """The workload. Raises ConfigError."""
        return load_workload(self.workload) if isinstance(self.workload, str) else self.workload

    def price_of(self, profile: str) -> float | None:
        """Of a device-hour, None when there are no prices. The longest matching name wins. Raises ConfigError."""
        if not self.prices:
            return None
        text = f"{profile} {read_profile(profile).hardware}".lower()
        known = [name for name in self.prices if name.lower() in text]
        if not known:
            raise ConfigError(f"prices: none fits the profile {profile!r}; name it, or leave all prices out.")
        return self.prices[max(known, key=len)]


def read_search(path: str) -> SearchFile:
    """A search file, with everything checked that needs no vLLM. Raises ConfigError with one clear sentence."""
    try:
        wanted = SearchFile.model_validate(load_yaml(path))
    except ValidationError as error:
        raise ConfigError(explain(error, path, SearchFile)) from error
    try:
        _check(wanted)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return wanted


def _check(wanted: SearchFile) -> None:
    spec = wanted.the_workload()
    here = not isinstance(
        wanted.workload, str
    )  # what comes along has a rate of its own, which another replaces
    if here and spec.rate is not None and wanted.rate is not None and spec.rate != wanted.rate:
        raise ConfigError(
            f"the workload says rate {spec.rate:g} and the search {wanted.rate:g}; keep one of them."
        )
    wanted.promise.targets()
    if any(price <= 0 for price in wanted.prices.values()):
        raise ConfigError("prices must be above zero.")
    for profile in wanted.space.profile:
        read_profile(profile)
        wanted.price_of(profile)
    policies = plugins.known_policies()
    for name in wanted.space.scheduler:
        if name not in policies and name != STOCK:
            raise ConfigError(f"unknown scheduler {name!r}; known: {STOCK}, {', '.join(sorted(policies))}.")
    for key in wanted.space.sarathi:
        if not any(takes(name, key) for name in wanted.space.scheduler):
            raise ConfigError(f"none of the schedulers takes the setting sarathi.{key}.")
    both = sorted(wanted.engine.keys() & type(wanted.space).model_fields.keys())
    if both:
        raise ConfigError(f"{both[0]} is under engine and under space; keep one of them.")


def takes(scheduler: str, key: str) -> bool:
    """Whether a scheduler has this setting of the plugin."""
    if scheduler == STOCK:
        return False
    cls = plugins.known_policies()[scheduler]
    own = {field.name for field in fields(cls)}
    if key.startswith("policy."):
        return key.removeprefix("policy.") in own
    return key in own if key in ("slo", "token_budget") else True


def applicable(config: Config) -> Config:
    """The configuration without what its scheduler does not take: two that differ in nothing else are one."""
    scheduler = config["scheduler"]
    whole = scheduler != STOCK and plugins.known_policies()[scheduler].whole_prompts
    kept = {}
    for key, value in config.items():
        if key.startswith(SETTING) and not takes(scheduler, key.removeprefix(SETTING)):
            continue
        if key == "max_num_batched_tokens" and whole:
            continue  # a step must hold the longest prompt
        kept[key] = value
    return kept


def key_of(config: Config) -> str:
    """What tells configurations apart."""
    return json.dumps(config, sort_keys=True)


def every(space: Space) -> Iterator[Config]:
    """Every different configuration, in a fixed order."""
    dimensions, seen = space.dimensions(), set()
    for values in itertools.product(*dimensions.values()):
        config = applicable(dict(zip(dimensions, values, strict=True)))
        if key_of(config) not in seen:
            seen.add(key_of(config))
            yield config


def engine_data(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    """Engine arguments of a configuration; ``common`` are those alike for all."""
    data: dict[str, Any] = dict(common)
    settings: dict[str, Any] = dict(common.get("sarathi", {}))
    for key, value in config.items():
        if key.startswith(SETTING + "policy."):
            name = key.removeprefix(SETTING + "policy.")
            settings["policy"] = {**settings.get("policy", {}), name: value}
        elif key.startswith(SETTING):
            settings[key.removeprefix(SETTING)] = value
        elif key == "kv_cache_gb":
            data["kv_cache_memory_bytes"] = None if value is None else round(value * 10**9)
        elif key not in ("profile", "replicas"):
            data[key] = value
    budget = config.get("max_num_batched_tokens")
    if budget is not None and config["scheduler"] in FIXED_BUDGET:
        settings["token_budget"] = budget
    if config["scheduler"] != STOCK:
        data["sarathi"] = settings
    else:
        data.pop("sarathi", None)
    return data


def with_changes(wanted: SearchFile, **given: Any) -> SearchFile:
    """The search with flags on top; None means not given. Raises ConfigError."""
    data = {key: value for key, value in given.items() if value is not None}
    try:
        changed = SearchFile.model_validate({**dict(wanted), **data})
    except ValidationError as error:
        raise ConfigError(explain(error, "search")) from error
    _check(changed)
    return changed
