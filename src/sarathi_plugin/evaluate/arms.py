"""From what is written to what runs: every arm with its engine arguments, ablations included."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sarathi_plugin import plugins
from sarathi_plugin.config import CURVES, ConfigError, explain, load_curve
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.search.serve_line import ENGINE_FLAGS, SWITCHES
from sarathi_plugin.simulate.spec import STOCK, EngineSpec, with_setting
from sarathi_plugin.steptime.profile import read_profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sarathi_plugin.deadlines import PrefillCurve
    from sarathi_plugin.evaluate.spec import ArmSpec, Experiment

PLUGIN_ONLY, STATIC, UNORDERED, UNRELEGATED = "plugin-only", "static-budget", "no-ordering", "no-relegation"
BUDGET = 512

TAKEN = {
    "--host", "--port", "--uds", "--served-model-name", "--scheduler", "--scheduler-cls", *ENGINE_FLAGS.values(),
    *(flag.replace("--no-", "--") for flag in SWITCHES.values()),
}  # fmt: skip
"""Flags of ``vllm serve`` that a server is given here: another value would be what runs, and not what is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One arm, ready to run. tuned: what tuning chose, in ``trials`` tries. role: given, or why it was added."""

    name: str
    engine: EngineSpec
    flags: tuple[str, ...] = ()
    url: str | None = None
    profile: str
    tuned: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 0
    role: str = "given"

    @property
    def stock(self) -> bool:
        """Whether vLLM runs without anything of ours."""
        return self.engine.scheduler == STOCK

    def facts(self) -> dict[str, Any]:
        """As plain data, for the record."""
        return {
            "name": self.name,
            "engine": self.engine.model_dump(mode="json", exclude_unset=True),
            "flags": list(self.flags),
            "url": self.url,
            "profile": self.profile,
            "tuned": dict(self.tuned),
            "trials": self.trials,
            "role": self.role,
        }


def arm_of(wanted: Experiment, spec: ArmSpec, tuned: Mapping[str, Any] | None = None, trials: int = 0) -> Arm:
    """The arm with what tuning chose. Raises ConfigError for arguments that do not exist or do not fit."""
    engine, own = with_knobs({**wanted.engine, **spec.engine}, spec.sarathi, tuned or {})
    settings = {} if spec.scheduler == STOCK else {**_promise(wanted), **own}
    try:
        if spec.scheduler == STOCK and own:
            raise ConfigError(f"Arm {spec.name!r}: stock vLLM takes no settings of ours; leave out sarathi.")
        built = EngineSpec.model_validate({**engine, "scheduler": spec.scheduler, "sarathi": settings})
    except ValidationError as error:
        raise ConfigError(explain(error, f"arm {spec.name!r}: engine", EngineSpec)) from error
    if spec.scheduler != STOCK:
        checked = built.settings()
        plugins.make_policy(checked, plugins.manager_for(checked, (STOCK,)))
    return Arm(
        name=spec.name,
        engine=built,
        flags=tuple(spec.flags),
        url=spec.url,
        profile=spec.profile or wanted.profile,
        tuned=dict(tuned or {}),
        trials=trials,
    )


def with_knobs(
    engine: Mapping[str, Any], settings: Mapping[str, Any], knobs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(engine arguments, settings of ours) with knobs set: KEY, sarathi.KEY or sarathi.policy.KEY."""
    engine = {**engine, "sarathi": dict(settings)}
    for name, value in knobs.items():
        engine = with_setting(engine, name, value)
    own = engine.pop("sarathi")
    fixed = own.get("token_budget")
    tokens = engine.get("max_num_batched_tokens") or (fixed if isinstance(fixed, int) else None)
    seqs = engine.get("max_num_seqs")
    if tokens is not None and seqs is not None and seqs > tokens:
        engine["max_num_seqs"] = tokens  # vLLM refuses more requests than tokens a step
    return engine, own


def _promise(wanted: Experiment) -> dict[str, Any]:
    """The deadlines of the experiment as settings of the plugin."""
    return {
        "classes": {name: slo.model_dump() for name, slo in wanted.classes.items()},
        "default_class": next(iter(wanted.classes)),
        "prefill_curve": curve_name(wanted),
    }


def curve_name(wanted: Experiment) -> str:
    """The prefill curve all arms are held to. Raises ConfigError when the profile has none and none is given."""
    if wanted.prefill_curve is not None:
        return wanted.prefill_curve
    name = read_profile(wanted.profile).name
    if not (CURVES / f"{name}.json").is_file():
        raise ConfigError(f"No prefill curve comes with the profile {name!r}: name one under prefill_curve.")
    return name


def targets_of(wanted: Experiment) -> Targets:
    """What every request of every arm is judged by. Raises ConfigError."""
    classes = {name: slo.build(name) for name, slo in wanted.classes.items()}
    curve: PrefillCurve = load_curve(curve_name(wanted))
    return Targets(next(iter(classes.values())), curve, classes)


def ablations(wanted: Experiment, arms: Mapping[str, Arm]) -> list[Arm]:
    """Arms that leave one thing of the subject out, as far as it has a switch for it. Raises ConfigError."""
    subject, baseline = arms[wanted.subject], arms[wanted.baseline]
    if subject.url or baseline.url or subject.stock:
        raise ConfigError(
            "Ablations need a subject with a policy of ours, and servers that are started here."
        )
    promise = _promise(wanted)
    found = [
        _variant(baseline, PLUGIN_ONLY, "the baseline's decisions with the plugin loaded", "vllm", promise),
        _variant(
            replace(subject, engine=subject.engine.model_copy(update={"max_num_batched_tokens": None})),
            STATIC,
            f"a fixed budget of {BUDGET} tokens a step, as published",
            "sarathi-static",
            {**promise, "token_budget": BUDGET},
        ),
    ]
    if subject.engine.scheduler == "sarathi":
        own = subject.engine.sarathi
        for name, why, policy in (
            (UNORDERED, "prompts in order of arrival", {"order": "arrival"}),
            (UNRELEGATED, "prompts by deadline: hopeless ones are not stepped back", {"order": "deadline"}),
        ):
            settings = {**own, "policy": {**own.get("policy", {}), **policy}}
            found.append(_variant(subject, name, why, "sarathi", settings))
    if isinstance(wanted.ablations, list):
        known = [arm.name for arm in found]
        if unknown := set(wanted.ablations) - set(known):
            raise ConfigError(f"No ablation {min(unknown)!r} of this subject; there are {', '.join(known)}.")
        found = [arm for arm in found if arm.name in wanted.ablations]
    return [arm for arm in found if arm.name not in arms]


def _variant(of: Arm, name: str, why: str, scheduler: str, settings: dict[str, Any]) -> Arm:
    data = of.engine.model_dump(exclude_unset=True) | {"scheduler": scheduler, "sarathi": settings}
    if data.get("max_num_batched_tokens", 0) is None:
        del data["max_num_batched_tokens"]
    return replace(of, name=name, engine=EngineSpec.model_validate(data), role=f"ablation: {why}")


def resolve(wanted: Experiment, tuned: Mapping[str, tuple[dict[str, Any], int]]) -> list[Arm]:
    """All arms in order, ablations last. tuned: (knobs, trials) by arm. Raises ConfigError."""
    arms = {}
    for spec in wanted.arms:
        knobs, trials = tuned.get(spec.name, ({}, 0))
        arms[spec.name] = arm_of(wanted, spec, knobs, trials)
    more = ablations(wanted, arms) if wanted.ablations else []
    return [*arms.values(), *more]


def servable(arms: Sequence[Arm], flags: Sequence[str]) -> None:
    """Raise ConfigError for an arm whose server would be another one than is written. flags: those of all servers."""
    for arm in arms:
        words = (word.partition("=")[0].replace("_", "-") for word in (*flags, *arm.flags))
        given = {word.replace("--no-", "--", 1) for word in words}
        if taken := sorted(flag for flag in given if flag in TAKEN or flag.startswith("--sarathi-")):
            raise ConfigError(
                f"Arm {arm.name!r}: leave {taken[0]} out of flags; it follows from scheduler, engine and sarathi."
            )
        if arm.engine.speculation and "--speculative-config" not in given:
            raise ConfigError(
                f"Arm {arm.name!r}: an acceptance rate cannot be served; name a method by the flag "
                "--speculative-config."
            )


def serve_flags(engine: EngineSpec) -> list[str]:
    """The engine arguments that were set as flags of ``vllm serve``; speculation has none (see ``servable``)."""
    found = []
    for name in sorted(engine.model_fields_set):
        value = getattr(engine, name)
        if name in ENGINE_FLAGS and value is not None:
            found += [ENGINE_FLAGS[name], str(value)]
        elif name in SWITCHES:
            found.append(SWITCHES[name] if not value else SWITCHES[name].replace("--no-", "--"))
    return found
