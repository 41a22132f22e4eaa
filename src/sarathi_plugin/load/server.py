"""A real server process: started, waited for, and stopped with everything that it started itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.lifeline import lifeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""No model downloads and no usage reports: what is measured does not wait for a network."""

LOG_LINES = 15
TERM_WAIT_S = 10
KILL_WAIT_S = 5.0


class ServerError(RuntimeError):
    """A server did not come up (the message then ends with its log's last lines), or failed us later."""


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What to start: ``vllm serve MODEL --host 127.0.0.1 --port (a free one) ARGS``.

    name: served model name. log: file for its output. env: on top of this process's environment and ``QUIET``.
    """

    model: str
    name: str
    log: Path
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: float = 300.0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers. pid: of its leader, and the id of its process group."""

    url: str
    name: str
    pid: int
    log: Path
    started_in_s: float


def vllm_command() -> str:
    """The ``vllm`` command beside this Python, else the one on PATH. Raises ConfigError without one."""
    beside = Path(sys.executable).parent / "vllm"
    found = str(beside) if beside.is_file() else shutil.which("vllm")
    if not found:
        raise ConfigError("There is no vllm command here: install vLLM (pip install 'sarathi-plugin[vllm]').")
    return found


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(spec: ServerSpec, port: int) -> list[str]:
    """The command line of a server."""
    where = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", spec.name]
    return [vllm_command(), "serve", spec.model, *where, *spec.args]


@contextlib.contextmanager
def serve(
    spec: ServerSpec,
    *,
    argv: Callable[[ServerSpec, int], list[str]] = command,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[RunningServer]:
    """Run a server for the length of a ``with`` block; leaves no process behind, also when the block raises.

    Nor when this process is killed in it. argv: makes the command line. Raises ServerError when the server exits or is
    not healthy in time.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    began = clock()
    with lifeline(TERM_WAIT_S) as hold:
        with spec.log.open("wb") as log:
            # A session of its own: its group holds all that it starts, and Ctrl-C reaches only us, who then stop it.
            process = subprocess.Popen(
                argv(spec, port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **QUIET, **spec.env},
                start_new_session=True,
            )
        try:
            hold(process.pid)
            _wait_healthy(process, url, spec, clock, sleep)
            yield RunningServer(url, spec.name, process.pid, spec.log, clock() - began)
        finally:
            stop_group(process, clock=clock, sleep=sleep)


def _wait_healthy(
    process: subprocess.Popen[bytes],
    url: str,
    spec: ServerSpec,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    deadline = clock() + spec.start_timeout_s
    with requests.Session() as session:
        session.trust_env = False
        while True:
            code = process.poll()
            if code is not None:
                raise ServerError(
                    f"The server ended with exit code {code} before it was ready.{tail(spec.log)}"
                )
            with contextlib.suppress(requests.exceptions.RequestException):
                if session.get(f"{url}/health", timeout=2).status_code == 200:
                    return
            if clock() > deadline:
                raise ServerError(f"The server was not ready in {spec.start_timeout_s:g} s.{tail(spec.log)}")
            sleep(0.25)


def answers(url: str) -> bool:
    """Whether anything answers there."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            session.get(f"{url}/health", timeout=10)
        except requests.exceptions.RequestException:
            return False
    return True


def tail(log: Path, lines: int = LOG_LINES) -> str:
    """The last lines of a log, as the end of an error message."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f" (No log: {error.strerror}.)"
    last = [line for line in text.splitlines() if line.strip()][-lines:]
    return f" The end of its log ({log}):\n" + "\n".join(last)


def stop_group(
    process: subprocess.Popen[bytes],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Stop a process and its group, by its own id: politely, then for good; at once when interrupted meanwhile."""
    try:
        for sig, seconds in ((signal.SIGTERM, TERM_WAIT_S), (signal.SIGKILL, KILL_WAIT_S)):
            os.killpg(process.pid, sig)
            if _gone(process, clock() + seconds, clock, sleep):
                break
    except ProcessLookupError:
        pass
    except BaseException:
        # A second Ctrl-C, or a terminal that goes away: whoever is impatient must not leave a server behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=KILL_WAIT_S)


def _gone(
    process: subprocess.Popen[bytes],
    deadline: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> bool:
    """Wait for the whole group to end; False when some of it is still there at the deadline."""
    while clock() < deadline:
        process.poll()  # reaps the leader: a zombie would still count as a member of its group
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        sleep(0.05)
    return False
