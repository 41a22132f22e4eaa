import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from sarathi_plugin.config import ConfigError
from sarathi_plugin.load import server
from sarathi_plugin.load.server import ServerError, ServerSpec, command, serve

# A server with a child of its own, like an API server and its engine; stands in where starting vLLM would be slow.
SERVER = """
import http.server, subprocess, sys, signal
stubborn = "stubborn" in sys.argv
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time\\n" + ("signal.signal(15, signal.SIG_IGN)\\n" if stubborn else "") +
    "print('child', flush=True)\\ntime.sleep(60)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
print("pid", child.pid, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def python(*more):
    return lambda spec, port: [sys.executable, "-c", spec.model, str(port), *more]


def spec(tmp_path, code=SERVER, **fields):
    return ServerSpec(code, "m", tmp_path / "server.log", **fields)


def child_pid(log):
    return int(log.read_text().split("pid ")[1].split()[0])


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_serves_and_leaves_nothing_behind(tmp_path):
    with serve(spec(tmp_path), argv=python()) as running:
        assert requests.get(running.url, timeout=5).status_code == 200
        child = child_pid(running.log)
        assert alive(child)
    assert not alive(child)
    assert not alive(running.pid)


def test_stops_on_exceptions_too(tmp_path):
    def interrupted():
        with serve(spec(tmp_path), argv=python()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not alive(child_pid(tmp_path / "server.log"))


def test_what_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "TERM_WAIT_S", 1)
    with serve(spec(tmp_path), argv=python("stubborn")) as running:
        child = child_pid(running.log)
        while "child" not in running.log.read_text():
            time.sleep(0.01)
    assert not alive(child)


def test_a_second_interrupt_kills_at_once(tmp_path):
    def impatient(_seconds):
        raise KeyboardInterrupt

    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, "0", "stubborn"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process.stdout as lines:
        child = int(next(line for line in lines if line.startswith("pid")).split()[1])
        with pytest.raises(KeyboardInterrupt):
            server.stop_group(process, sleep=impatient)
        process.wait(10)
    for _ in range(200):
        if not alive(child):
            break
        time.sleep(0.01)
    assert not alive(child)


# The parent of a server: says where its log is by serving, then waits to be killed.
PARENT = """
import pathlib, sys, time
from sarathi_plugin.load import server
server.TERM_WAIT_S = 1
spec = server.ServerSpec(sys.argv[1], "m", pathlib.Path(sys.argv[2]))
argv = lambda spec, port: [sys.executable, "-c", spec.model, str(port), *sys.argv[3:]]
with server.serve(spec, argv=argv) as running:
    print(running.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("stubborn", [(), ("stubborn",)])
def test_a_parent_that_is_killed_leaves_no_server(tmp_path, sig, stubborn):
    log = tmp_path / "server.log"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, SERVER, str(log), *stubborn], stdout=subprocess.PIPE, text=True
    ) as parent:
        leader = int(parent.stdout.readline())
        while "child" not in log.read_text():
            time.sleep(0.01)
        parent.send_signal(sig)
    assert parent.returncode == -sig
    pids = (leader, child_pid(log))
    gone_by = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < gone_by:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def test_a_server_that_exits_shows_its_last_words(tmp_path):
    code = "import sys; print('loading'); sys.exit('no such model')"
    with (
        pytest.raises(ServerError, match=r"(?s)exit code 1 before it was ready.*loading\nno such model"),
        serve(spec(tmp_path, code), argv=lambda s, _: [sys.executable, "-u", "-c", s.model]),
    ):
        pass


def test_a_server_that_never_answers_is_stopped(tmp_path):
    code = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(60)"
    with (
        pytest.raises(ServerError, match=r"not ready in 0\.5 s"),
        serve(spec(tmp_path, code, start_timeout_s=0.5), argv=python()),
    ):
        pass
    assert not alive(child_pid(tmp_path / "server.log"))


def test_environment_and_command(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "vllm_command", lambda: "vllm")
    assert command(spec(tmp_path, "MODEL", args=("--seed", "1")), 80) == [
        *(
            "vllm",
            "serve",
            "MODEL",
            "--host",
            "127.0.0.1",
            "--port",
            "80",
            "--served-model-name",
            "m",
            "--seed",
            "1",
        )
    ]
    code = "import os, sys; sys.exit(' '.join(os.environ[k] for k in ('HF_HUB_OFFLINE', 'VLLM_NO_USAGE_STATS', 'X')))"
    with (
        pytest.raises(ServerError, match=r"\n1 1 extra$"),
        serve(spec(tmp_path, code, env={"X": "extra"}), argv=python()),
    ):
        pass


def test_no_vllm(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no vllm command"):
        server.vllm_command()


def test_stopping_what_is_gone_is_fine():
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait()
    server.stop_group(process)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
