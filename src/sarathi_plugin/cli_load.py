"""``sarathi loadtest``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sarathi_plugin.guard import guard


def loadtest(
    url: Annotated[str, typer.Argument(help="Root of an OpenAI-compatible server; its key: OPENAI_API_KEY.")],
    workload: Annotated[str, typer.Option(help="A workload by name, or a workload file.")] = "sharegpt-like",
    rate: Annotated[float | None, typer.Option(help="Requests per second, on average.")] = None,
    duration: Annotated[
        str | None, typer.Option(help="How long requests arrive: 60s, 5m. 60s when unset.")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Exactly so many requests instead.")] = None,
    users: Annotated[
        int | None,
        typer.Option(
            min=1, help="Closed loop: so many people, each waiting for an answer before the next turn."
        ),
    ] = None,
    think: Annotated[
        float | None,
        typer.Option(min=0, help="Mean seconds a person thinks between answer and next turn; 5 when unset."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the schedule; the workload's, or 0.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Multiplies prompt and output lengths.")] = 1.0,
    processes: Annotated[int, typer.Option(min=1, max=256, help="Processes that send.")] = 1,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="Exit code 1 if, e.g. 'fluidity_share<0.99'; may repeat. errors>0 when unset."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report, summary and timelines.")] = Path(
        "sarathi-loadtest"
    ),
    chat: Annotated[bool, typer.Option("--chat", help="Use the chat endpoint.")] = False,
    model: Annotated[
        str | None, typer.Option(help="One of the server's models; its first when unset.")
    ] = None,
    slo_class: Annotated[str | None, typer.Option(help="SLO class of every request.")] = None,
    tbt_ms: Annotated[float | None, typer.Option(help="D_d of the default class, milliseconds.")] = None,
    ttft_slack_ms: Annotated[
        float | None, typer.Option(help="TTFT slack of the default class, milliseconds.")
    ] = None,
    settings: Annotated[
        str | None, typer.Option(help="YAML file the server was started with: classes, curve.")
    ] = None,
    curve: Annotated[str | None, typer.Option(help="Prefill curve: a shipped one, or a file.")] = None,
    silence: Annotated[float, typer.Option(min=0.1, help="Longest silence of a server, seconds.")] = 300.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest request, seconds.")] = 1800.0,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve Prometheus series here, on loopback.")
    ] = None,
    web_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve Locust's web UI here, on loopback.")
    ] = None,
) -> None:
    """Send production-like traffic at its own pace, and judge every token as its user would.

    Exit codes: 0 good, 1 a --fail-if crossed, 2 bad usage, 3 the run is invalid (the client was the bottleneck).
    """

    def run() -> None:
        from sarathi_plugin.config import ConfigError
        from sarathi_plugin.loadtest import command
        from sarathi_plugin.loadtest.plan import Amount, duration_s
        from sarathi_plugin.loadtest.setup import Wanted

        if think is not None and users is None:
            raise ConfigError("--think is for the people of --users.")
        amount = Amount(rate, duration_s(duration), requests, users, *([] if think is None else [think]))
        wanted = Wanted(
            url, workload, amount, seed, scale, model, settings, curve, tbt_ms, ttft_slack_ms, slo_class, chat,
            silence, timeout,
        )  # fmt: skip
        where = command.Where(out, processes, metrics_port, web_port)
        raise typer.Exit(command.loadtest(wanted, fail_if or [], where))

    guard(run, extra="load")
