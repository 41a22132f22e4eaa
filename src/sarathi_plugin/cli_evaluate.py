"""``sarathi evaluate`` and ``sarathi report``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sarathi_plugin.guard import guard, quiet_vllm


def evaluate(
    experiment: Annotated[Path, typer.Argument(help="YAML file: arms, workloads, loads, seeds, repeats.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for runs and report; named after the experiment when unset.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would run, and how long it takes.")
    ] = False,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="The same in the simulator, whatever the file says.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of simulation and tuning; all cores when unset.")
    ] = None,
) -> None:
    """Compare arms: tune baselines, run interleaved, check validity, report. The same command resumes."""

    def run() -> None:
        quiet_vllm()
        from sarathi_plugin.evaluate import command

        cores = len(os.sched_getaffinity(0))
        command.evaluate(
            experiment, out, plan_only=plan, simulated=simulated, workers=workers or cores, say=typer.echo
        )

    guard(run, extra="eval,vllm")


def report(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of an experiment; its report is written anew.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two stored runs, the second against the first: folders, timelines or recordings."),
    ] = None,
    metric: Annotated[str, typer.Option(help="What the answer of a comparison is about.")] = "fluid_share",
    out: Annotated[Path, typer.Option(help="Folder for the report of a comparison.")] = Path(
        "sarathi-comparison"
    ),
) -> None:
    """Write the report of an experiment anew, or compare two stored runs."""

    def run() -> None:
        from sarathi_plugin.config import ConfigError

        if (folder is None) == (compare is None):
            raise ConfigError("Give the folder of an experiment, or two runs with --compare A B.")
        if folder is not None:
            from sarathi_plugin.evaluate import report as reporting

            typer.echo(reporting.write(folder))
            typer.echo(f"report: {folder / 'report.html'} and {folder / 'report.md'}")
        elif compare is not None:
            from sarathi_plugin.evaluate import compare as comparing

            comparing.compare(*compare, out, metric, say=typer.echo)

    guard(run, extra="eval")
