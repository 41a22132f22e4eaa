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

from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.server import free_port
from sarathi_plugin.loadtest.master import Master
from sarathi_plugin.loadtest.result import Result, conclude
from sarathi_plugin.loadtest.worker import ScheduleUser, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sarathi_plugin.loadtest.console import Display
    from sarathi_plugin.loadtest.live import Live
    from sarathi_plugin.loadtest.setup import Setup
    from sarathi_plugin.loadtest.thresholds import Threshold

TICK_S = 1.0
CONNECT_WAIT_S = 60.0
STOP_WAIT_S = 10.0


def run(
    setup: Setup, thresholds: Sequence[Threshold], processes: int, display: Display, live: Live
) -> Result:
    """Run a load test and sum it up. Ctrl-C ends it early, with all that was measured until then."""
    environment = Environment(user_classes=[ScheduleUser])
    master = Master(environment, live.add)
    with _workers(environment, processes), _stop_on_signal(master):
        master.attach()
        environment.runner.start(processes, spawn_rate=processes)
        master.begin(setup)
        _watch(master, live, display)
        environment.runner.quit()
    return conclude(
        setup,
        master.timelines,
        master.clients,
        thresholds,
        stopped=master.stopped,
        lost_workers=master.lost_workers,
    )


def _watch(master: Master, live: Live, display: Display) -> None:
    """Show the run until it is over; when it was stopped, no longer than its workers may take."""
    stopped_s = 0.0
    while not master.finished.wait(TICK_S):
        at_s = (time.monotonic_ns() - master.start_ns) / 1e9 if master.start_ns else 0.0
        live.tick(at_s)
        display.show(live, master.state(), at_s)
        if master.stopped:
            stopped_s += TICK_S
            if stopped_s > STOP_WAIT_S:
                return


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
