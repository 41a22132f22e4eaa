"""The search itself: which configurations to try next (optuna), many at once, until time or ideas run out."""

from __future__ import annotations

import os
import time
import warnings
from typing import TYPE_CHECKING, Any, Literal

from sarathi_plugin.search.pareto import label_of, value_of
from sarathi_plugin.search.space import applicable, every, key_of
from sarathi_plugin.search.trial import Row, Trial, run_trial
from sarathi_plugin.simulate.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import optuna

    from sarathi_plugin.search.space import Config, SearchFile

STARTUP = 24
"""Configurations drawn at random before the sampler has something to go by."""

PATIENCE = 20
"""Batches without a new configuration after which the space counts as exhausted."""

HOPELESS_TTFT_S = 1e4

Direction = Literal["minimize", "maximize"]


class Study:
    """Rows of everything tried so far. now: a clock in seconds; evaluate: runs trials and yields them as they end."""

    def __init__(
        self,
        wanted: SearchFile,
        *,
        batch: int,
        evaluate: Callable[[Sequence[Trial]], Iterator[tuple[Trial, Row]]],
        say: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rows: dict[str, Row] = {}
        self._wanted = wanted
        self._batch = batch
        self._evaluate = evaluate
        self._say = say
        self._now = now
        self._end = now() + 60 * wanted.minutes

    def run(self) -> list[Row]:
        """Try configurations until enough are tried, time is up, or there are no others."""
        configs = list(every(self._wanted.space))
        self._say(
            f"{len(configs)} different configurations, {min(len(configs), self._wanted.trials)} to try at most"
        )
        if len(configs) <= self._wanted.trials:
            for at in range(0, len(configs), self._batch):
                if self._now() >= self._end:
                    break
                self._try(configs[at : at + self._batch])
        else:
            self._sample()
        return list(self.rows.values())

    @property
    def hurdle(self) -> float:
        """Load per unit of cost below which a configuration is hopeless."""
        best = max((value_of(row) for row in self.rows.values()), default=0.0)
        return 0.0 if self._wanted.rate is not None else self._wanted.hopeless * best

    def _try(self, configs: list[Config]) -> None:
        hurdle = self.hurdle
        trials = [
            Trial(config=config, wanted=self._wanted, hurdle=hurdle, seed=self._wanted.seed)
            for config in configs
        ]
        for trial, row in self._evaluate(trials):
            self.rows[key_of(trial.config)] = row
            self._say(f"{len(self.rows)} tried, {label_of(trial.config)}: {outcome_of(row)}")

    def _sample(self) -> None:
        study = make_study(self._wanted)
        dimensions = self._wanted.space.dimensions()
        without_news = 0
        while len(self.rows) < self._wanted.trials and without_news < PATIENCE and self._now() < self._end:
            room = min(self._batch, self._wanted.trials - len(self.rows))
            asked: list[tuple[optuna.Trial, Config]] = []
            fresh: dict[str, Config] = {}
            for _ in range(4 * room):
                trial = study.ask()
                config = applicable(suggest(trial, dimensions))
                asked.append((trial, config))
                if key_of(config) not in self.rows:
                    fresh[key_of(config)] = config
                if len(fresh) == room:
                    break
            self._try(list(fresh.values()))
            for trial, config in asked:
                study.tell(trial, objectives(self.rows[key_of(config)]))
            without_news = 0 if fresh else without_news + 1


def make_study(wanted: SearchFile) -> optuna.Study:
    """One objective where a capacity is sought (load per cost), three where a load is given."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    one: list[Direction] = ["maximize"]
    directions = one if wanted.rate is None else ["minimize", *one, "minimize"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=wanted.seed, n_startup_trials=STARTUP)
    return optuna.create_study(directions=directions, sampler=sampler)


def suggest(trial: Any, dimensions: dict[str, list[Any]]) -> Config:
    """A value for every dimension. Numbers go by their place in the list, so that neighbours are near."""
    found = {}
    for key, values in dimensions.items():
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if numbers:
            ordered = sorted(values)
            found[key] = ordered[trial.suggest_int(key, 0, len(ordered) - 1)]
        else:
            found[key] = values[trial.suggest_categorical(key, list(range(len(values))))]
    return found


def objectives(row: Row) -> list[float]:
    """What the sampler is told, in the order of ``make_study``."""
    if row["load"] is None:
        return [value_of(row)]
    if row["hopeless"]:
        return [row["cost_per_hour"], 0.0, HOPELESS_TTFT_S]
    figures = row["figures"]
    first = figures["ttft_p90_s"]
    return [row["cost_per_hour"], figures["fluidity_index"], HOPELESS_TTFT_S if first is None else first]


def run_all(
    trials: Sequence[Trial], *, workers: int | None, ray_address: str | None
) -> Iterator[tuple[Trial, Row]]:
    """Every trial, over cores or a Ray cluster."""
    yield from sweep(run_trial, trials, workers=workers, ray_address=ray_address)


def batch_size(workers: int | None, ray_address: str | None) -> int:
    """Trials asked for at once: several a core, so that long ones do not keep the others waiting."""
    if ray_address is not None and workers is None:
        return 32
    return 4 * (workers or len(os.sched_getaffinity(0)))


def outcome_of(row: Row) -> str:
    """What came of it, in a few words."""
    if row["hopeless"]:
        return f"hopeless ({row['reason']})"
    if row["capacity"] is not None:
        return f"{row['capacity']:.3g} requests/s"
    figures = row["figures"]
    return f"{figures['fluid_share']:.1%} fluid{'' if row['passed'] else ', not enough'}"
