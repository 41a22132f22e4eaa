"""``sarathi dashboards`` and ``sarathi trace``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sarathi_plugin.guard import guard, warn

dashboards = typer.Typer(help="Grafana dashboards: push, preview, write the files.", no_args_is_help=True)
trace = typer.Typer(help="Recordings as traces.", no_args_is_help=True)


@trace.callback()
def _trace() -> None:
    """Without it typer would make the only command the group itself."""


@trace.command("export")
def trace_export(
    recording: Annotated[Path, typer.Argument(help="A file that --sarathi-record wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="Trace to write (.json or .json.gz); beside the recording when unset.")
    ] = None,
) -> None:
    """Write a recording as a trace for Perfetto: a track of steps, and one per request."""

    def run() -> None:
        from sarathi_plugin.telemetry import trace_command

        trace_command.export(recording, out, say=typer.echo, warn=warn)

    guard(run, extra="monitoring")


@dashboards.command("push")
def dashboards_push(
    url: Annotated[str, typer.Argument(help="Root of a Grafana, as https://HOST:PORT/PATH.")],
    folder: Annotated[
        str, typer.Option(help="Folder of the dashboards; made if it is not there.")
    ] = "Sarathi",
    docs_url: Annotated[
        str | None, typer.Option(help="Where runbooks.md is served, for the links of the dashboards.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace dashboards that differ in Grafana.")
    ] = False,
) -> None:
    """Push the dashboards to a Grafana. The token is read from the environment: GRAFANA_TOKEN."""

    def run() -> None:
        from sarathi_plugin.monitoring import push

        push.push(url, folder, docs_url, dry_run=dry_run, overwrite=overwrite, say=typer.echo)

    guard(run, extra="monitoring")


@dashboards.command("preview")
def dashboards_preview(
    prometheus: Annotated[str, typer.Option(help="Root of a Prometheus that scrapes the servers.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("sarathi-dashboards"),
    minutes: Annotated[float, typer.Option(min=0.1, help="How far back.")] = 30.0,
    values: Annotated[
        list[str] | None, typer.Option("--var", help="NAME=VALUE of a dashboard variable; may repeat.")
    ] = None,
) -> None:
    """Draw every dashboard as a picture, from a Prometheus; no Grafana needed."""

    def run() -> None:
        from sarathi_plugin.monitoring import preview

        preview.preview(prometheus, out, minutes, values or [], say=typer.echo)

    guard(run, extra="monitoring")


@dashboards.command("export")
def dashboards_export(
    out: Annotated[Path, typer.Argument(help="Folder to write, which must not exist or be empty.")],
) -> None:
    """Write rules, dashboards, provisioning and compose file into a folder."""

    def run() -> None:
        from sarathi_plugin.monitoring import files

        files.export(out, say=typer.echo)

    guard(run, extra="monitoring")
