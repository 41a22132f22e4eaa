"""The ``sarathi`` command. Bad input is one sentence on stderr and exit code 2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sarathi_plugin import cli_search
from sarathi_plugin.cli_evaluate import evaluate, report
from sarathi_plugin.cli_load import loadtest
from sarathi_plugin.cli_monitoring import dashboards, trace
from sarathi_plugin.cli_profile import profile
from sarathi_plugin.cli_search import RayAddress, Router, Workers
from sarathi_plugin.guard import guard, quiet_vllm

app = typer.Typer(
    name="sarathi",
    help="Stall-free scheduling for vLLM: see it, measure it. Serve with: vllm serve MODEL --scheduler sarathi",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(profile, name="profile")
app.add_typer(dashboards, name="dashboards")
app.add_typer(trace, name="trace")
app.command()(loadtest)
app.command()(cli_search.capacity)
app.command()(cli_search.search)
app.command()(evaluate)
app.command()(report)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sarathi-plugin {version('sarathi-plugin')}")
        raise typer.Exit


@app.callback()
def _common(
    _wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    fast: Annotated[
        bool, typer.Option("--fast", help="A tiny random model: quicker, answers noise.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for picture, timelines and logs.")] = Path("sarathi-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the traffic.")] = 0,
) -> None:
    """Serve a model with stock vLLM and with the plugin under the same load, and show both side by side."""

    def run() -> None:
        from sarathi_plugin.demo import command

        command.demo(fast=fast, out=out, seed=seed)

    guard(run, extra="demo")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model, as in vllm serve MODEL.")],
) -> None:
    """Run vllm serve with --scheduler sarathi and the live page at /sarathi. Takes all flags of vllm serve."""

    def run() -> None:
        from sarathi_plugin.engine import serve as serving

        serving.serve([model, *context.args])

    guard(run, extra="page")


@app.command()
def top(
    url: Annotated[
        str, typer.Argument(help="Root of a server with the live page.")
    ] = "http://127.0.0.1:8000",
    slo_class: Annotated[str | None, typer.Option(help="Show this SLO class alone.")] = None,
    every: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds between two looks.")] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="One look; exit code 1 when there is nothing live.")
    ] = False,
) -> None:
    """Live figures of a server in the terminal. Its API key, if it has one, is read from VLLM_API_KEY."""

    def run() -> None:
        from sarathi_plugin.telemetry.page import top as terminal

        if not terminal.top(url, every_s=every, once=once, slo_class=slo_class):
            raise typer.Exit(1)

    guard(run, extra="page")


@app.command()
def simulate(
    workload: Annotated[str, typer.Argument(help="A kind of traffic by name, or a workload YAML file.")],
    profile_name: Annotated[
        str, typer.Option("--profile", help="A shipped step-time profile, or a file.")
    ] = "a100-llama-3-8b-tp1",
    scheduler: Annotated[str | None, typer.Option(help="A policy, or stock for vLLM's own class.")] = None,
    engine: Annotated[Path | None, typer.Option(help="YAML file of engine arguments.")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="How many requests.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of traffic and noise.")] = 0,
    replicas: Annotated[int, typer.Option(min=1, help="Engines alike behind a router.")] = 1,
    router: Router = "least-outstanding",
    sweeps: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            help="KEY=A,B,C: every value of an engine argument, of sarathi.KEY or of sarathi.policy.KEY; may repeat.",
        ),
    ] = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("sarathi-simulation"),
) -> None:
    """Run the real vLLM scheduler on virtual time: what would this traffic meet on that machine?"""

    def run() -> None:
        from sarathi_plugin.steptime.profile import read_profile
        from sarathi_plugin.workload.spec import load_workload

        read_profile(profile_name), load_workload(workload)  # a wrong name is told before vLLM's slow import
        quiet_vllm()
        from sarathi_plugin.simulate import command

        command.command(
            command.Wanted(
                workload, profile_name, out, engine, {"scheduler": scheduler}, tuple(sweeps or ()), rate, requests,
                seed, replicas, router, workers, ray_address,
            ),
            say=typer.echo,
        )  # fmt: skip

    guard(run, extra="simulate,vllm")


@app.command()
def replay(
    recording: Annotated[Path, typer.Argument(help="A file that --sarathi-record wrote.")],
) -> None:
    """Play a recording against the scheduler again and compare every decision; exit code 1 when one differs."""

    def run() -> None:
        from sarathi_plugin.telemetry.recording import read_recording

        recorded_run = read_recording(recording)  # a bad file is told before vLLM's slow import
        quiet_vllm()
        from sarathi_plugin.simulate.replay import replay as play

        report = play(recorded_run)
        typer.echo(
            f"{report.steps} scheduling decisions, {report.different} differ; {report.preemptions} preemptions, "
            f"{report.cached_tokens} prompt tokens from the prefix cache"
        )
        for step, recorded, replayed in report.differences:
            typer.echo(f"step {step}: recorded {recorded}, replayed {replayed}")
        if report.different:
            raise typer.Exit(1)

    guard(run, extra="simulate,vllm")


def main() -> None:
    """Entry point of the ``sarathi`` command."""
    app()


if __name__ == "__main__":
    main()
