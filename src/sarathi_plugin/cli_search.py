"""``sarathi capacity`` and ``sarathi search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sarathi_plugin.guard import guard, quiet_vllm

Router = Annotated[str, typer.Option(help="round-robin, least-outstanding or kv-aware.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; all cores when unset.")]
RayAddress = Annotated[str | None, typer.Option(help="A Ray cluster to use instead.")]


def capacity(
    where: Annotated[
        str,
        typer.Argument(
            help="A step-time profile, the URL of a running server, or a YAML file of one to start."
        ),
    ] = "a100-llama-3-8b-tp1",
    workload: Annotated[
        str, typer.Option(help="A kind of traffic by name, or a workload YAML file.")
    ] = "sharegpt-like",
    scheduler: Annotated[
        str | None, typer.Option(help="Policies, or stock, separated by commas. Of a URL: its own.")
    ] = None,
    criterion: Annotated[
        str, typer.Option(help="When a run passes: fluid, sarathi, deadline, tbt_ttft or ttft_tpot.")
    ] = "fluid",
    limits: Annotated[
        list[str] | None,
        typer.Option("--limit", help="KEY=NUMBER of the criterion, as tbt_s=0.1; may repeat."),
    ] = None,
    tbt_ms: Annotated[float | None, typer.Option(help="D_d of the default class, ms.")] = None,
    ttft_slack_ms: Annotated[float | None, typer.Option(help="TTFT slack of the default class, ms.")] = None,
    slo: Annotated[
        Path | None, typer.Option(help="YAML file of what is promised: classes, prefill_curve.")
    ] = None,
    engine: Annotated[Path | None, typer.Option(help="YAML file of engine arguments.")] = None,
    requests: Annotated[int | None, typer.Option(min=10, help="Requests of a run.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Searches, each with a seed of its own.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    resolution: Annotated[float, typer.Option(help="How finely, as a share of the rate.")] = 0.03,
    start: Annotated[float | None, typer.Option(help="Where to begin, requests per second.")] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Simulated engines behind a router.")] = 1,
    replicas_for: Annotated[
        str | None,
        typer.Option(help="How many replicas carry this rate? Or trace: the workload's own arrivals."),
    ] = None,
    router: Router = "least-outstanding",
    workers: Workers = None,
    ray_address: RayAddress = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write everything as JSON to this file too.")] = None,
) -> None:
    """The highest rate that passes, with its interval and what broke beyond it: simulated or live."""

    def run() -> None:
        from sarathi_plugin.search import capacity_command

        wanted = capacity_command.Wanted(
            where=where, workload=workload, schedulers=scheduler, engine=engine, slo=slo, tbt_ms=tbt_ms,
            ttft_slack_ms=ttft_slack_ms, criterion=criterion, limits=tuple(limits or ()), requests=requests,
            repeats=repeats, seed=seed, resolution=resolution, start=start, replicas=replicas, router=router,
            replicas_for=replicas_for, workers=workers, ray_address=ray_address, as_json=as_json, out=out,
        )  # fmt: skip
        capacity_command.command(wanted, say=say, write=typer.echo, quiet=quiet_vllm)

    guard(run, extra="simulate,vllm")


def search(
    file: Annotated[Path, typer.Argument(help="YAML file of what to search.")],
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("sarathi-search"),
    trials: Annotated[
        int | None, typer.Option(min=1, help="Most configurations; the file's when unset.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Most minutes; the file's when unset.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests per second to carry; the file's when unset.")
    ] = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Serve the winner on this machine and measure its capacity.")
    ] = False,
    verify_repeats: Annotated[int, typer.Option(min=1, help="Live searches.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """The best way to serve a workload: engines, machines and replicas, tried in the simulator."""

    def run() -> None:
        from sarathi_plugin.search.space import read_search, with_changes

        wanted = with_changes(read_search(str(file)), trials=trials, minutes=minutes, rate=rate)
        import optuna  # noqa: F401 - told now if it is missing, not after minutes

        quiet_vllm()
        from sarathi_plugin.search import search_command

        options = search_command.Options(
            out=out, workers=workers, ray_address=ray_address, live=verify, live_repeats=verify_repeats,
            as_json=as_json,
        )  # fmt: skip
        search_command.command(wanted, options, say=say, write=typer.echo)

    guard(run, extra="search,vllm")


def say(text: str) -> None:
    """Progress, beside the answer."""
    typer.echo(text, err=True)
