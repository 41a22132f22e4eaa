"""``sarathi profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sarathi_plugin.guard import guard, warn

profile = typer.Typer(help="Measure what a server can do: prefill curve, step times.", no_args_is_help=True)


@profile.command("prefill")
def profile_prefill(
    url: Annotated[str, typer.Argument(help="Root of a running, idle, stock vLLM server.")],
    out: Annotated[Path, typer.Option(help="Curve file to write.")] = Path("prefill-curve.json"),
    longest: Annotated[
        int | None, typer.Option(help="Longest prompt, tokens; the model's when unset.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Requests at each length.")] = 3,
    hardware: Annotated[str | None, typer.Option(help="What it runs on, for the record.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the prompts.")] = 0,
) -> None:
    """Measure the prefill curve of an idle server: what time to first token a prompt of n tokens deserves."""

    def run() -> None:
        from sarathi_plugin.load import profile_command

        profile_command.prefill(url, out, longest, repeats, hardware, seed, say=typer.echo)

    guard(run, extra="load")


@profile.command("record")
def profile_record(
    model: Annotated[str, typer.Argument(help="The model to serve, as in vllm serve MODEL.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="More arguments of vllm serve, after --.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Recording to write (.jsonl.gz).")] = Path("grid.jsonl.gz"),
    streams: Annotated[int, typer.Option(min=1, help="Most concurrent streams.")] = 32,
    context: Annotated[
        int | None, typer.Option(min=64, help="Longest context; half the model's when unset.")
    ] = None,
    budget: Annotated[int, typer.Option(min=64, help="max_num_batched_tokens while recording.")] = 2048,
    traffic: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds of random traffic after the grid; 0 for none.")
    ] = 40.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the prompts.")] = 0,
) -> None:
    """Serve a model, drive it over a grid of batches and by traffic, record every step. On an idle machine."""

    def run() -> None:
        from sarathi_plugin.load import record_command

        record_command.record(
            model, out, arguments or [], max_streams=streams, max_context=context, budget=budget,
            traffic_s=traffic, seed=seed, say=typer.echo,
        )  # fmt: skip

    guard(run, extra="load")


@profile.command("fit")
def profile_fit(
    recordings: Annotated[
        list[Path], typer.Argument(help="Files that --sarathi-record wrote, of one engine.")
    ],
    out: Annotated[Path, typer.Option(help="Profile file to write.")] = Path("step-time-profile.json"),
    name: Annotated[str | None, typer.Option(help="Name of the profile; the file's when unset.")] = None,
    hardware: Annotated[str | None, typer.Option(help="What it ran on; this machine when unset.")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for figures of how well it fits.")] = None,
) -> None:
    """Fit a step-time profile to recorded runs, for sarathi simulate and as the start of a server's own model."""

    def run() -> None:
        from sarathi_plugin.telemetry import fit_command

        fit_command.fit(
            recordings, out, name=name, hardware=hardware, report=report, say=typer.echo, warn=warn
        )

    guard(run, extra="simulate")


@profile.command("import")
def profile_import(
    tables: Annotated[Path, typer.Argument(help="Vidur-format mlp.csv of the model and device.")],
    model: Annotated[Path, typer.Option(help="JSON with the model's facts, as under model: in a profile.")],
    hardware: Annotated[str, typer.Option(help="The device.")],
    attention: Annotated[Path, typer.Option(help="Vidur-format attention.csv.")],
    memory_gb: Annotated[float, typer.Option(min=1, help="Memory of one device, GB.")],
    all_reduce: Annotated[
        Path | None, typer.Option(help="Vidur-format all_reduce.csv, for parallelism > 1.")
    ] = None,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="Devices that share a layer.")] = 1,
    out: Annotated[Path, typer.Option(help="Profile file to write.")] = Path("step-time-profile.json"),
) -> None:
    """Make a step-time profile from operator tables in Vidur's format."""

    def run() -> None:
        from sarathi_plugin.steptime import import_command

        import_command.run(
            tables, model, hardware, memory_gb, attention, all_reduce, tensor_parallel, out, say=typer.echo
        )

    guard(run, extra="simulate")
