"""The options of a load test under Locust's own command, and the load test they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.loadtest.plan import Amount, duration_s
from sarathi_plugin.loadtest.setup import Wanted

if TYPE_CHECKING:
    from argparse import Namespace

    from locust.argument_parser import LocustArgumentParser


def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """Options beside Locust's own; those of a run are also fields of the form that starts one in the web UI."""
    for flag, default, text in (
        ("--workload", "sharegpt-like", "A workload by name, or a workload file"),
        ("--rate", "", "Requests per second; the workload's own when empty"),
        ("--duration", "", "How long requests arrive: 60s, 5m (--run-time means the same); 60s when empty"),
        (
            "--think",
            "",
            "Closed loop: Locust's users (-u) chat, and think so many seconds on average between turns",
        ),
        ("--seed", "0", "Seed of the schedule"),
        ("--scale", "1", "Multiplies prompt and output lengths"),
        ("--endpoint", "completions", "completions or chat"),
        ("--served-model", "", "One of the server's models; its first when empty"),
        ("--slo-class", "", "SLO class of every request"),
        ("--tbt-ms", "", "D_d of the default class, milliseconds"),
        ("--settings", "", "YAML file the server was started with: classes, curve"),
        ("--fail-if", "", "Exit code 1 if, e.g. fluidity_share<0.99; several with commas"),
        ("--out", "sarathi-loadtest", "Folder for report, summary and timelines"),
    ):
        parser.add_argument(flag, type=str, default=default, help=text)
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=None,
        include_in_web_ui=False,
        help="Prometheus series, on loopback",
    )
    # Locust's own default is every interface; what is reachable from outside is to be asked for.
    parser.set_defaults(web_host="127.0.0.1", num_users=1, spawn_rate=1)


def wanted_of(options: Namespace, host: str | None, users: int) -> Wanted:
    """The load test that options ask for. Raises ConfigError."""
    if not host:
        raise ConfigError("Give the server's address with --host, as http://HOST:PORT.")
    if options.endpoint not in ("completions", "chat"):
        raise ConfigError(f"--endpoint is completions or chat, not {options.endpoint!r}.")
    think = _number("--think", options.think)
    amount = Amount(
        _number("--rate", options.rate),
        duration_s(options.duration or None),
        None,
        None if think is None else users,
        think or 0.0,
    )
    seed, scale = _number("--seed", options.seed), _number("--scale", options.scale)
    if seed is not None and (seed < 0 or not seed.is_integer()):
        raise ConfigError(f"--seed takes a whole number from 0 on, not {options.seed!r}.")
    return Wanted(
        host,
        options.workload,
        amount,
        None if seed is None else int(seed),
        1.0 if scale is None else scale,
        options.served_model or None,
        options.settings or None,
        tbt_ms=_number("--tbt-ms", options.tbt_ms),
        slo_class=options.slo_class or None,
        chat=options.endpoint == "chat",
    )


def _number(flag: str, text: str) -> float | None:
    """A number from a form field, None when it is empty."""
    if not str(text).strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{flag} takes a number, not {text!r}.") from None
