"""What may be tuned of an arm when nobody says otherwise, and the search over it. Pure but for optuna's sampler."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.evaluate.spec import Knob
from sarathi_plugin.simulate.spec import with_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sarathi_plugin.evaluate.spec import ArmSpec

BUDGETS: list[int | float | bool | str | None] = [128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192]
BUDGET = "max_num_batched_tokens"
STOCK_KNOBS = {
    BUDGET: Knob(choices=BUDGETS),
    "max_num_seqs": Knob(choices=[16, 32, 64, 128, 256]),
    "long_prefill_token_threshold": Knob(choices=[0, 128, 256, 512, 1024, 2048]),
}
"""Of vLLM's own scheduler. The limits of concurrent partial prefills of older versions are gone from vLLM 0.32."""

KNOBS: dict[str, dict[str, Knob]] = {
    "stock": STOCK_KNOBS,
    "vllm": STOCK_KNOBS,
    "sarathi-static": {
        "sarathi.token_budget": Knob(choices=BUDGETS),
        "max_num_seqs": STOCK_KNOBS["max_num_seqs"],
    },
    "sarathi": {
        "sarathi.policy.look_ahead": Knob(low=0.05, high=1.0, log=True),
        "sarathi.policy.stall_cap": Knob(low=1.0, high=8.0),
        "max_num_seqs": STOCK_KNOBS["max_num_seqs"],
    },
    "niyama": {
        "sarathi.policy.alpha": Knob(low=0.0005, high=0.1, log=True),
        "max_num_seqs": STOCK_KNOBS["max_num_seqs"],
    },
}
"""By scheduler."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration tried. score: None when it was refused, with the reason."""

    knobs: dict[str, Any]
    score: float | None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Tuning:
    """All trials of one arm, the arm as it was written first."""

    arm: str
    trials: tuple[Trial, ...]
    seeds: tuple[int, ...]
    space: dict[str, Any]

    @property
    def best(self) -> Trial:
        """The best one; the earliest of equals."""
        able = [trial for trial in self.trials if trial.score is not None]
        if not able:
            raise ConfigError(f"Tuning {self.arm!r}: no configuration could run: {self.trials[0].refused}")
        return max(able, key=lambda trial: trial.score or 0.0)

    def facts(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"best": asdict(self.best)}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Tuning:
        """From plain data."""
        return cls(
            data["arm"],
            tuple(Trial(**one) for one in data["trials"]),
            tuple(data["seeds"]),
            dict(data["space"]),
        )


def knobs_of(arm: ArmSpec) -> dict[str, Knob]:
    """The knobs of an arm that is tuned. Raises ConfigError when there are none by default and none are given."""
    for name in arm.knobs or ():
        try:
            with_setting({}, name, None)
        except ConfigError as error:
            raise ConfigError(f"Arm {arm.name!r}, knobs: {error}") from error
        if name == "sarathi":
            raise ConfigError(f"Arm {arm.name!r}, knobs: sarathi is no setting; write sarathi.KEY.")
    if arm.knobs:
        return arm.knobs
    if arm.scheduler not in KNOBS:
        raise ConfigError(f"Arm {arm.name!r}: nothing is known to tune of {arm.scheduler!r}; name its knobs.")
    return KNOBS[arm.scheduler]


def probes(knob: Knob) -> list[Any]:
    """Values that stand for all that a search may choose: the choices, or the ends and something between them."""
    if knob.choices is not None:
        return list(knob.choices)
    low, high = knob.low or 0.0, knob.high or 0.0
    return [round(low), round(high)] if knob.whole else [low, low + (high - low) / math.e, high]


def search(
    knobs: Mapping[str, Knob],
    score: Callable[[dict[str, Any]], float],
    *,
    trials: int,
    seed: int,
    note: Callable[[int, Trial], None] = lambda _number, _trial: None,
) -> tuple[Trial, ...]:
    """So many trials: first no knob touched, then what a seeded TPE sampler suggests; same seed, same trials.

    score: larger is better; a ConfigError makes the trial refused. note: sees every trial.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(2, min(10, trials // 2)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    found = [_try({}, score)]
    note(1, found[0])
    while len(found) < trials:
        asked = study.ask()
        chosen = {name: _suggest(asked, name, knob) for name, knob in knobs.items()}
        known = next((one for one in found if one.knobs == chosen), None)
        trial = known or _try(chosen, score)
        found.append(trial)
        if trial.score is None:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(asked, trial.score)
        note(len(found), trial)
    return tuple(found)


def _try(knobs: dict[str, Any], score: Callable[[dict[str, Any]], float]) -> Trial:
    try:
        return Trial(knobs, score(knobs))
    except ConfigError as error:
        return Trial(knobs, None, str(error))


def _suggest(trial: Any, name: str, knob: Knob) -> Any:
    if knob.choices is not None:
        return trial.suggest_categorical(name, knob.choices)
    low, high = knob.low or 0.0, knob.high or 0.0
    if knob.whole:
        return trial.suggest_int(name, round(low), round(high), log=knob.log)
    return trial.suggest_float(name, low, high, log=knob.log)
