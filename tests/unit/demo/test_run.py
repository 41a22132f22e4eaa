"""The whole demo against a stand-in server; the real one is in tests/e2e/test_demo_fast.py."""

import contextlib
import io
import json
import signal
from pathlib import Path

import pytest
from rich.console import Console

from sarathi_plugin.demo import command, run
from sarathi_plugin.demo.arms import Arm
from sarathi_plugin.demo.console import Screen
from sarathi_plugin.demo.models import DemoModel
from sarathi_plugin.demo.scenario import Scenario
from sarathi_plugin.load.server import RunningServer, ServerError
from sarathi_plugin.load.timelines import read_timelines
from tests.unit.load.conftest import stand_in  # noqa: F401  (a fixture)

SMALL = Scenario(2, 1, 2, document_tokens=256, document_answer=3, chat_tokens_range=(2, 4))


def answer(handler):
    body = handler.server.bodies[-1]
    if handler.path == "/tokenize":
        data = json.dumps({"tokens": list(body["prompt"].encode())}).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
        return
    handler.begin()
    for total in range(1, body["max_tokens"] + 1):
        handler.token(" ha", total=total, finish="length" if total == body["max_tokens"] else None)
    handler.event("[DONE]")
    handler.end()


@pytest.fixture
def demo(stand_in, monkeypatch, tmp_path):  # noqa: F811
    server = stand_in(answer)
    specs = []

    @contextlib.contextmanager
    def serve(spec):
        specs.append(spec)
        yield RunningServer(server.url, spec.name, 0, spec.log, 1.0)

    monkeypatch.setattr(run, "serve", serve)
    screen = Screen(Console(file=io.StringIO(), width=120))
    model = DemoModel("m", "a model", Path("model"), ("--dtype", "float32"), talks=True)
    demo = run.Demo(model, SMALL, tmp_path, 0, screen, lambda slo, curve: Arm("b", "second", ("--flag",)))
    return demo, specs, server


def test_both_arms_get_the_same_and_all_is_written(demo):
    job, (specs, server) = demo[0], demo[1:]
    machine = job.run()
    stock, second = specs
    assert second.args == (*stock.args, "--flag")
    assert second.env == stock.env
    loads = [body for body in server.bodies if body.get("ignore_eos") and body["max_tokens"] in (3, 4)]
    assert len(job.results) == 2
    assert [r.run.outcomes[i].request for r in job.results for i in range(5)][:5] == list(
        job.workload.requests
    )
    assert sum("messages" in body for body in loads) >= 6
    assert job.answer.startswith("ha ha")
    command._write(job, machine)
    command._show(job, 1.0)
    text = job.screen.console.file.getvalue()
    assert "D_d = 4 x that" in text
    assert "longest freeze of a stream" in text
    assert "ha ha" in text
    figures = json.loads((job.out / "demo.json").read_text())
    assert [arm["errors"] for arm in figures["arms"]] == [0, 0]
    assert {t.curve for t in read_timelines(job.out / "b.jsonl.gz")} == {machine.curve.build().digest}
    assert (job.out / "timelines.png").stat().st_size > 10_000


def test_a_tokenizer_that_fails(demo):
    job, _, server = demo

    def broken(handler):
        handler.send_error(500) if handler.path == "/tokenize" else answer(handler)

    server.script = broken
    with pytest.raises(ServerError, match="/tokenize failed"):
        job.run()


def test_sigterm_ends_by_an_exception_once(monkeypatch, tmp_path):
    stopped = []

    def interrupted(_job):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGHUP)  # must not disturb the stopping of servers
            stopped.append("server")

    monkeypatch.setattr(run.Demo, "run", interrupted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    with pytest.raises(SystemExit) as exit_info:
        command.demo(fast=True, out=tmp_path / "out", seed=0)
    assert exit_info.value.code == 128 + signal.SIGTERM
    assert stopped == ["server"]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before
