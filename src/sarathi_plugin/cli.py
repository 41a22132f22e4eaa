"""The ``sarathi`` command. Bad input is one sentence on stderr and exit code 2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    name="sarathi",
    help="Stall-free scheduling for vLLM: see it, measure it. Serve with: vllm serve MODEL --scheduler sarathi",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
profile = typer.Typer(help="Measure what a server on this machine can do.", no_args_is_help=True)
app.add_typer(profile, name="profile")


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


@profile.command("steps")
def profile_steps(
    recording: Annotated[Path, typer.Argument(help="A file that --sarathi-record wrote.")],
    out: Annotated[Path, typer.Option(help="Profile file to write.")] = Path("step-time-profile.json"),
    hardware: Annotated[str, typer.Option(help="What it ran on, for the record.")] = "",
) -> None:
    """Save what the step-time model learned in a recorded run; a server starts from it with step_time_profile: FILE."""

    def run() -> None:
        from sarathi_plugin.steptime.profile import from_recording
        from sarathi_plugin.telemetry.recording import read_recording

        found = read_recording(recording)
        profile = from_recording(found.head, found.step_time, hardware=hardware, source=recording.name)
        out.write_text(profile.model_dump_json(indent=2) + "\n", encoding="utf-8")
        typer.echo(f"{out}: {len(found.steps)} steps, margin {profile.margin:.0%}")

    guard(run, extra="load")


def guard(run: Callable[[], None], *, extra: str) -> None:
    """Run a command; turn expected failures into one sentence and an exit code.

    2 for bad input or a missing extra, 1 for a server that fails, 130 for Ctrl-C.
    """
    from sarathi_plugin.config import ConfigError

    try:
        run()
    except ConfigError as error:
        _fail(str(error), 2)
    except ModuleNotFoundError as error:
        _fail(f"This needs {error.name}: pip install 'sarathi-plugin[{extra}]'.", 2)
    except KeyboardInterrupt:
        _fail("Stopped.", 130)
    except RuntimeError as error:
        from sarathi_plugin.load.server import ServerError

        if not isinstance(error, ServerError):
            raise
        _fail(str(error), 1)


def _fail(sentence: str, code: int) -> None:
    typer.echo(sentence, err=True)
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the ``sarathi`` command."""
    app()


if __name__ == "__main__":
    main()
