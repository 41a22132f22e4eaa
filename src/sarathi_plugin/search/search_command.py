"""``sarathi search`` behind its flags: search, finals, Pareto front, the winner as a command, and its live check."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.machine import check_cores
from sarathi_plugin.outputs import make_folder, writing
from sarathi_plugin.search import search_text
from sarathi_plugin.search.deployment import Traffic
from sarathi_plugin.search.pareto import front, ranked, value_of
from sarathi_plugin.search.promise import check_classes
from sarathi_plugin.search.repeats import mean_interval
from sarathi_plugin.search.search_picture import draw
from sarathi_plugin.search.serve_line import serve_arguments, serve_line, settings_text
from sarathi_plugin.search.space import every, key_of
from sarathi_plugin.search.study import Study, batch_size, run_all
from sarathi_plugin.search.trial import Row, Trial, deployment_of, finals_of, per_million, predicted
from sarathi_plugin.search.verify import verify
from sarathi_plugin.simulate.routing import make_router

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sarathi_plugin.search.space import SearchFile

WINNER = "winner.yaml"
"""The winner's settings, in ``out``, where its command needs a file."""

VERIFY_SEED = 500
"""Seeds of the live check and of its prediction: those that chose the winner flatter it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The flags. workers: processes, all cores when None. live: serve the winner and measure it."""

    out: Path
    workers: int | None = None
    ray_address: str | None = None
    live: bool = False
    live_repeats: int = 3
    as_json: bool = False


def command(
    wanted: SearchFile, options: Options, *, say: Callable[[str], None], write: Callable[[str], None]
) -> None:
    """Search, write ``out``, print the answer. Raises ConfigError for bad input, ServerError from the live check."""
    check(wanted, options)
    make_folder(options.out)
    begin = time.monotonic()
    study = Study(
        wanted,
        batch=batch_size(options.workers, options.ray_address),
        evaluate=lambda trials: run_all(trials, workers=options.workers, ray_address=options.ray_address),
        say=say,
    )
    rows = study.run()
    searched_s = time.monotonic() - begin
    best = finals(rows, wanted, options, say=say)
    report, settings = report_of(wanted, rows, best, options.out / WINNER)
    report["seconds"] = {"search": round(searched_s, 1), "with_finals": round(time.monotonic() - begin, 1)}
    try:
        if options.live and best:
            report["verification"] = check_live(best[0], wanted, options, say=say)
    finally:  # a live check that fails takes nothing away from what was found
        text = json.dumps(report, indent=1)
        write(text if options.as_json else "\n".join(search_text.lines(report)))
        with writing(options.out):
            (options.out / "search.json").write_text(text + "\n", encoding="utf-8")
            if settings:
                (options.out / WINNER).write_text(settings_text(settings), encoding="utf-8")
            draw(
                options.out / "pareto.png",
                rows,
                front(rows),
                _row_of(rows, best),
                search_text.cost_name(rows),
            )


def check(wanted: SearchFile, options: Options) -> None:
    """What can be told before anything runs. Raises ConfigError."""
    make_router(wanted.router)
    if options.live and wanted.serve is None:
        raise ConfigError("--verify needs a model to serve: name it under serve: in the file.")
    if options.live and wanted.serve is not None:
        check_cores(wanted.serve.client_cores)
    if options.live_repeats < 1:
        raise ConfigError("A live check needs at least one repeat.")
    seen: set[tuple[str, str]] = set()
    for config in every(wanted.space):
        if (config["profile"], config["scheduler"]) not in seen:
            seen.add((config["profile"], config["scheduler"]))
            deployment = deployment_of(config, wanted)
            trace = Traffic(wanted.the_workload(), wanted.requests).at(wanted.rate or 1.0, wanted.seed)
            check_classes(trace, deployment.targets())
            trace.checked(deployment.engine.model_length(deployment.machine))


def finals(rows: list[Row], wanted: SearchFile, options: Options, *, say: Callable[[str], None]) -> list[Row]:
    """The best again with other seeds, best first: seeds that chose a configuration speak too well of it."""
    chosen = ranked(rows)[: wanted.finals]
    trials = finals_of(chosen, wanted)
    if trials:
        say(f"finals: {len(chosen)} configurations, {wanted.repeats} other seeds each")
    found: dict[str, list[tuple[int, Row]]] = {}
    for trial, row in run_all(trials, workers=options.workers, ray_address=options.ray_address):
        found.setdefault(key_of(trial.config), []).append((trial.seed, row))
    merged = [
        merge(row, [one for _, one in sorted(found[key_of(row["config"])], key=lambda pair: pair[0])])
        for row in chosen
    ]
    if wanted.rate is None:
        return sorted(merged, key=lambda row: -value_of(row))
    # A load is carried only if it is under every seed; then the cheapest, as they are ranked already.
    return sorted(merged, key=lambda row: not row["passed"])


def merge(first: Row, again: list[Row]) -> Row:
    """A configuration by its finals: mean capacity with its interval, mean figures, passed if under every seed."""
    row = dict(first)
    row["searched"] = {"capacity": first["capacity"], "figures": first["figures"]}
    row["passed"] = all(one["passed"] for one in again)
    if first["load"] is None:
        rates = [one["capacity"] or 0.0 for one in again]
        interval = mean_interval(rates)
        row["capacity"] = statistics.fmean(rates)
        row["capacities"] = rates
        row["interval_95"] = None if interval is None else [max(0.0, interval.low), interval.high]
    able = [one["figures"] for one in again if one["figures"]]
    row["figures"] = {name: _mean([one[name] for one in able]) for name in first["figures"]}
    row["hopeless"] = not able
    row["per_million_tokens"] = per_million(row)
    return row


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _row_of(rows: list[Row], best: list[Row]) -> Row | None:
    """The winner as the search saw it, for the picture: its finals have other seeds."""
    if not best:
        return None
    return next(row for row in rows if key_of(row["config"]) == key_of(best[0]["config"]))


def report_of(
    wanted: SearchFile, rows: list[Row], best: list[Row], file: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything as data, and the settings of the winner that its command finds in this file (none: no file)."""
    from sarathi_plugin import __version__

    report: dict[str, Any] = {
        "version": __version__,
        "asked": wanted.model_dump(mode="json", exclude_defaults=True, by_alias=True),
        "tried": len(rows),
        "hopeless": sum(row["hopeless"] for row in rows),
        "front": front(rows),
        "finals": best,
        "winner": None,
        "rows": rows,
    }
    settings: dict[str, Any] = {}
    if best and best[0]["passed"]:
        model = (
            wanted.serve.model
            if wanted.serve
            else deployment_of(best[0]["config"], wanted).machine.model.name
        )
        words, settings = serve_arguments(deployment_of(best[0]["config"], wanted), file)
        more = wanted.serve.args if wanted.serve else []
        report["winner"] = {**best[0], "serve": serve_line(model, [*more, *words])}
    return report, settings


def check_live(
    row: Row, wanted: SearchFile, options: Options, *, say: Callable[[str], None]
) -> dict[str, Any]:
    """The winner's predicted capacity (one replica, seeds of its own) beside the live one."""
    seeds = range(VERIFY_SEED, VERIFY_SEED + options.live_repeats)
    trials: list[Trial] = predicted(row["config"], wanted, seeds)
    rates = [one["capacity"] or 0.0 for _, one in run_all(trials, workers=options.workers, ray_address=None)]
    rate = statistics.fmean(rates)
    if not rate:
        raise ConfigError("One replica of the winner carries no load alone, so there is nothing to verify.")
    say(f"predicted for one replica: {rate:.3g} requests/s")
    return verify(row["config"], wanted, rates, seeds, say=say)
