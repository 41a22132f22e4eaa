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
from sarathi_plugin.loadtest.course import follow, sum_up, write
from sarathi_plugin.loadtest.live import Live
from sarathi_plugin.loadtest.master import Master
from sarathi_plugin.loadtest.metrics import serve_metrics
from sarathi_plugin.loadtest.options import add_options, wanted_of
from sarathi_plugin.loadtest.result import parse_thresholds
from sarathi_plugin.loadtest.setup import prepare
from sarathi_plugin.loadtest.webtab import attach_tab, check_port
from sarathi_plugin.loadtest.worker import Worker
from sarathi_plugin.outputs import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from locust.env import Environment
    from locust.web import WebUI

    from sarathi_plugin.loadtest.setup import Setup
    from sarathi_plugin.loadtest.thresholds import Threshold

log = logging.getLogger("sarathi.loadtest")
END_WAIT_S = 15.0
SHOW_EVERY_S = 10.0
SETTLE_S = 0.5
"""A worker that is told to quit in the moment it connects does not hear it."""


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
        except Exception as error:
            # All of them: Locust logs what a listener raises, and waits for ever for a run that never began.
            self._refuse(*failure(error))
            gevent.spawn(self._end)
            return
        self._live.reset()
        self._told = False
        self._master.begin(setup)
        gevent.spawn(self._follow)

    def _refuse(self, sentence: str, code: int = 2) -> None:
        log.error(sentence)
        self._problem = sentence
        self._environment.process_exit_code = code

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
        for line in closing(result):
            log.info(line)
        try:
            write(self._out, result, self._live.course)
        except ConfigError as error:
            self._refuse(str(error))
        else:
            log.info("%s: %s", self._out / "report.html", result.verdict)

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


def failure(error: Exception) -> tuple[str, int]:
    """Why a run cannot begin, and the exit code; what is no bad input is logged with its traceback."""
    if isinstance(error, ConfigError):
        return str(error), 2
    log.error("What went wrong:", exc_info=error)
    return f"The run cannot begin: {type(error).__name__}: {error}", 1


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
        except Exception as error:
            sentence, code = failure(error)
            log.error(sentence)
            gevent.sleep(SETTLE_S)
            runner.quit()  # workers that are here already need not wait
            raise SystemExit(code) from error


def install() -> None:
    """Listen to Locust; a locustfile calls this once, and has a user class to keep Locust running."""
    events.init_command_line_parser.add_listener(add_options)
    events.init.add_listener(on_init)
