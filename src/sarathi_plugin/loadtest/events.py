"""The same load test under Locust's own command: what ``loadtests/locustfile.py`` installs.

Locust starts and stops it, has its web UI, its ``--processes``, its ``--master`` and ``--worker`` on several machines;
schedule, measuring and judging are those of ``sarathi loadtest``.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from sarathi_plugin.config import ConfigError
from sarathi_plugin.loadtest.console import closing
from sarathi_plugin.loadtest.course import follow, make_folder, sum_up, write
from sarathi_plugin.loadtest.live import Live
from sarathi_plugin.loadtest.master import Master
from sarathi_plugin.loadtest.metrics import serve_metrics
from sarathi_plugin.loadtest.plan import Amount, duration_s
from sarathi_plugin.loadtest.result import parse_thresholds
from sarathi_plugin.loadtest.setup import Wanted, prepare
from sarathi_plugin.loadtest.webtab import attach_tab, check_port
from sarathi_plugin.loadtest.worker import Worker

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

    from locust.argument_parser import LocustArgumentParser
    from locust.env import Environment
    from locust.web import WebUI

    from sarathi_plugin.loadtest.setup import Setup
    from sarathi_plugin.loadtest.thresholds import Threshold

log = logging.getLogger("sarathi.loadtest")
END_WAIT_S = 15.0
SHOW_EVERY_S = 10.0
SETTLE_S = 0.5
"""A worker that is told to quit in the moment it connects does not hear it."""


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


class Conductor:
    """Follows Locust on the deciding side: begins a run when Locust starts, ends Locust when the run is over."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._live = Live()
        self._master = Master(environment, self._live.add)
        self._open = contextlib.ExitStack()
        self._problem = ""
        self._told = True
        self._thresholds: Sequence[Threshold] = ()
        self._out = Path()
        self._ready: Setup | None = None

    def attach(self, ui: WebUI | None) -> None:
        """Listen to Locust; what would only be said once all machines are there is checked now. Raises ConfigError."""
        options = self._environment.parsed_options
        if options.run_time:
            # Locust would cut the last answers off; here it is the time in which requests arrive.
            options.duration, options.run_time = f"{options.run_time}s", None
        self._master.attach()
        self._environment.events.test_start.add_listener(self._start)
        self._environment.events.test_stopping.add_listener(self._stop)
        self._environment.events.quitting.add_listener(self._quit)
        self._environment.events.worker_connect.add_listener(self._joined)
        if ui is not None:
            check_port(options.web_host.replace("*", ""), options.web_port)
            attach_tab(ui, self._live, lambda: self._master.state() | {"problem": self._problem})
        if options.headless and options.master and not options.processes:
            self._ready = self._prepare()
        self._open.enter_context(serve_metrics(self._live, options.metrics_port))

    def _prepare(self) -> Setup:
        """The run that the options ask for. Raises ConfigError."""
        options = self._environment.parsed_options
        thresholds = parse_thresholds([text for text in options.fail_if.split(",") if text.strip()])
        out = Path(options.out)
        make_folder(out)
        setup = prepare(wanted_of(options, self._environment.host, options.num_users))
        self._thresholds, self._out = thresholds, out
        return setup

    def interrupt(self) -> None:
        """Ctrl-C: before its workers are there Locust does not expect it, and would leave them waiting."""
        if self._ready is None:
            interrupt()
        else:
            log.error("Stopped before the run began.")
            self._environment.runner.quit()
            raise SystemExit(130)

    def _start(self, **_: Any) -> None:
        self._problem = ""
        try:
            setup, self._ready = self._ready or self._prepare(), None
        except ConfigError as error:
            self._refuse(str(error))
            gevent.spawn(self._end)
            return
        self._live.reset()
        self._told = False
        self._master.begin(setup)
        gevent.spawn(self._follow)

    def _refuse(self, sentence: str) -> None:
        log.error(sentence)
        self._problem = sentence
        self._environment.process_exit_code = 2

    def _follow(self) -> None:
        shown = 0.0

        def show(at_s: float) -> None:
            nonlocal shown
            if at_s - shown >= SHOW_EVERY_S:
                shown = at_s
                state = self._master.state()
                log.info(
                    "%s sent, %s ended. %s",
                    state["sent"],
                    state["ended"],
                    ", ".join(f"{title} {value}" for title, value in self._live.total().items()),
                )

        follow(self._master, self._live, show)
        self._tell()
        self._end()

    def _joined(self, client_id: str, **_: Any) -> None:
        if self._master.is_stranger(client_id):
            log.warning("%s came too late for this run: it takes part in the next one.", client_id)

    def _tell(self) -> None:
        """Sum up, once."""
        if self._told:
            return
        self._told = True
        if self._master.problem:
            self._refuse(self._master.problem)
            return
        result = sum_up(self._master, self._thresholds)
        self._environment.process_exit_code = result.exit_code
        try:
            write(self._out, result, self._live.course)
        except ConfigError as error:
            self._refuse(str(error))
        for line in [*closing(result), f"{self._out / 'report.html'}: {result.verdict}"]:
            log.info(line)

    def _end(self) -> None:
        """Let Locust stop, and end when there is nobody at its web UI to start another run."""
        options, runner = self._environment.parsed_options, self._environment.runner
        if options.headless:
            runner.quit()
        else:
            runner.stop()

    def _stop(self, **_: Any) -> None:
        """Locust was stopped, by a person or by us."""
        if not self._told:
            self._master.stop()
            self._master.finished.wait(END_WAIT_S)
            self._tell()

    def _quit(self, **_: Any) -> None:
        self._stop()
        self._open.close()


def interrupt() -> None:
    """Raise KeyboardInterrupt where Locust waits for its end, and expects it."""
    gevent.get_hub().handle_system_error(KeyboardInterrupt, KeyboardInterrupt())


def heed_interrupts(react: Callable[[], None]) -> None:
    """React to Ctrl-C in a greenlet of its own.

    Python raises it in whichever greenlet happens to run, and that one ends: the listener to the other machines, a
    stream.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: gevent.spawn(react))


def on_init(environment: Environment, runner: Any, web_ui: WebUI | None = None, **_: Any) -> None:
    """Make the process what it is: a worker, a master, or both. When Locust quits, the master part hears it first."""
    if not isinstance(runner, MasterRunner):
        Worker(environment).attach()
    if isinstance(runner, WorkerRunner):
        heed_interrupts(interrupt)
    else:
        conductor = Conductor(environment)
        heed_interrupts(conductor.interrupt)
        try:
            conductor.attach(web_ui)
        except ConfigError as error:
            log.error(str(error))
            gevent.sleep(SETTLE_S)
            runner.quit()  # workers that are here already need not wait
            raise SystemExit(2) from error


def install() -> None:
    """Listen to Locust; a locustfile calls this once, and has a user class to keep Locust running."""
    events.init_command_line_parser.add_listener(add_options)
    events.init.add_listener(on_init)
