"""A load test without Locust's command: one process, or a master with workers of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import gevent
from locust.env import Environment
from locust.stats import stats_history

from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.server import free_port
from sarathi_plugin.loadtest.course import follow, sum_up
from sarathi_plugin.loadtest.master import Master
from sarathi_plugin.loadtest.webtab import attach_tab, check_port
from sarathi_plugin.loadtest.worker import ScheduleUser, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sarathi_plugin.loadtest.command import Where
    from sarathi_plugin.loadtest.console import Display
    from sarathi_plugin.loadtest.live import Live
    from sarathi_plugin.loadtest.result import Result
    from sarathi_plugin.loadtest.setup import Setup
    from sarathi_plugin.loadtest.thresholds import Threshold

CONNECT_WAIT_S = 60.0


def run(setup: Setup, thresholds: Sequence[Threshold], where: Where, display: Display, live: Live) -> Result:
    """Run a load test and sum it up. Ctrl-C ends it early, with all that was measured until then."""
    environment = Environment(user_classes=[ScheduleUser], host=setup.served.url)
    master = Master(environment, live.add)
    with (
        _workers(environment, where.processes),
        _web_ui(environment, master, live, where.web_port),
        _stop_on_signal(master),
    ):
        master.attach()
        environment.runner.start(where.processes, spawn_rate=where.processes)
        master.begin(setup)
        follow(master, live, lambda at_s: display.show(live, master.state(), at_s))
        environment.runner.quit()
    if master.problem:
        raise ConfigError(master.problem)
    return sum_up(master, thresholds)


@contextlib.contextmanager
def _web_ui(environment: Environment, master: Master, live: Live, port: int | None) -> Iterator[None]:
    """Locust's web UI with the tab, on loopback, for the length of a block; nothing without a port."""
    if port is None:
        yield
        return
    check_port("127.0.0.1", port)
    # Locust's page reads the command line for options of its own, and would end the process over ours.
    argv, sys.argv = sys.argv, sys.argv[:1]
    ui = environment.create_web_ui("127.0.0.1", port, delayed_start=True)
    attach_tab(ui, live, master.state)
    ui.start()
    environment.runner.greenlet.spawn(stats_history, environment.runner)
    environment.events.test_stop.add_listener(lambda **_: gevent.spawn(master.stop))  # the page's Stop button
    try:
        yield
    finally:
        ui.stop()
        sys.argv = argv


@contextlib.contextmanager
def _stop_on_signal(master: Master) -> Iterator[None]:
    """Ctrl-C and a polite kill stop the run; a second one kills the process."""
    handlers = [
        gevent.signal_handler(number, _stop_once, master) for number in (signal.SIGINT, signal.SIGTERM)
    ]
    try:
        yield
    finally:
        for handler in handlers:
            handler.cancel()


def _stop_once(master: Master) -> None:
    if master.stopped:
        raise KeyboardInterrupt
    gevent.spawn(master.stop)


@contextlib.contextmanager
def _workers(environment: Environment, processes: int) -> Iterator[None]:
    """A runner with so many workers: this process alone, or child processes that end with the block."""
    if processes == 1:
        environment.create_local_runner()
        Worker(environment).attach()
        yield
        return
    port = free_port()
    environment.create_master_runner("127.0.0.1", port)
    command = [sys.executable, "-m", "sarathi_plugin.loadtest.child", str(port)]
    # Sessions of their own: Ctrl-C reaches the master alone, which asks them to stop and takes what they measured.
    children = [subprocess.Popen(command, start_new_session=True) for _ in range(processes)]
    try:
        _wait_connected(environment, children)
        yield
    finally:
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=3)
            if child.poll() is None:
                child.kill()
                child.wait()


def _wait_connected(environment: Environment, children: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + CONNECT_WAIT_S
    while environment.runner.worker_count < len(children):
        ended = [child.returncode for child in children if child.poll() is not None]
        if ended or time.monotonic() > deadline:
            raise ConfigError(f"The worker processes did not start (exit codes {ended or 'none'}).")
        gevent.sleep(0.1)
