"""``sarathi top``: what it shows of a server that serves, stalls, is not there, or is another one."""

from __future__ import annotations

import http.server
import io
import threading
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sarathi_plugin.cli import app
from sarathi_plugin.config import ConfigError
from sarathi_plugin.telemetry.live.build import Query, ServerFacts, build
from sarathi_plugin.telemetry.live.document import LiveDocument
from sarathi_plugin.telemetry.page import top
from tests.unit.telemetry.live.live_scene import LiveScene, Server
from tests.unit.telemetry.scene import FAST

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stalled() -> Iterator[LiveDocument]:
    """A server with one stream that has been overdue for ten seconds."""
    scene = LiveScene("test-top")
    scene.arrive("a")
    scene.arrive("p", ms=90)
    scene.give(100, "a")
    scene.schedule(110, 1, {"p": 12_000})
    yield Server("test-top").look(10_350)
    scene.close()


def text_of(answer: top.Answer, last: LiveDocument | None = None, width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(top.frame(answer, last))
    return console.export_text()


def test_a_stall_is_on_top(stalled: LiveDocument):
    text = text_of(top.Answer(stalled))
    assert "1 stream overdue, the worst by 10.0 s." in text
    assert "1 decodes + 12000 prompt tokens: 10.2 s so far" in text
    assert "prefill" in text
    assert "NOT LIVE" not in text
    row = next(line.split() for line in text.splitlines() if line.startswith("fast"))
    assert row[1:3] == ["-", "0.000"], "nothing counted in ten seconds, and all that is overdue missed"


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_the_terminal(stalled: LiveDocument, width: int):
    text = text_of(top.Answer(stalled), width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text


def test_the_longest_of_our_classes_fits_eighty_columns(stalled: LiveDocument):
    classes = [c.model_copy(update={"name": "interactive", "tokens_per_s": 1234.5}) for c in stalled.classes]
    text = text_of(top.Answer(stalled.model_copy(update={"classes": classes})), width=80)
    assert "late 1st" in text
    assert "failed" in text
    assert "…" not in text
    assert "unknown class 0" in text


def test_without_an_answer_old_figures_are_marked(stalled: LiveDocument):
    text = text_of(top.Answer(None, "No answer."), stalled)
    assert "NOT LIVE. No answer. What is below is from" in text
    assert "10.2 s" in text
    assert text_of(top.Answer(None, "No answer.")).count("No answer.") == 1


def test_a_server_without_our_scheduler_shows_no_figures():
    document = build(ServerFacts("m", "", (), "1", "2", stock=True), [], Query(), 0, 0.0)
    text = text_of(top.Answer(document))
    assert "--scheduler" in text
    assert "fluid" not in text


def test_what_cannot_be_read_is_one_sentence():
    with pytest.raises(ConfigError, match="version 1"):
        top.read(b'{"version": 2}')


@pytest.fixture
def answers() -> Iterator[tuple[str, list[tuple[int, bytes]], list[str | None]]]:
    """A server that answers what it is told; (address, answers to come, Authorization headers it got)."""
    to_come: list[tuple[int, bytes]] = []
    got: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append(self.headers.get("Authorization"))
            status, content = to_come.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", to_come, got
    server.shutdown()
    thread.join()
    server.server_close()


def run(*arguments: str, key: str | None = None):
    return CliRunner(env={top.KEY: key, "COLUMNS": "140"}).invoke(app, ["top", *arguments])


def test_one_look(answers, stalled: LiveDocument):
    url, to_come, got = answers
    to_come.append((200, stalled.model_dump_json().encode()))
    done = run(url, "--once", key="sk-one")
    assert done.exit_code == 0, done.output
    assert "fast" in done.output
    assert got == ["Bearer sk-one"]


@pytest.mark.parametrize(
    ("status", "content", "words", "code"),
    [
        (401, b"", "VLLM_API_KEY", 2),
        (404, b"", "sarathi serve", 2),
        (400, b'{"error": "Unknown slo_class."}', "Unknown slo_class.", 2),
        (503, b"", "answers 503", 1),
        (200, b"[]", "version", 2),
    ],
)
def test_what_goes_wrong_is_said(answers, status: int, content: bytes, words: str, code: int):
    url, to_come, _ = answers
    to_come.append((status, content))
    done = run(url, "--once")
    assert done.exit_code == code
    assert words in done.output


def test_nobody_there_is_an_exit_code():
    done = run("http://127.0.0.1:9", "--once")
    assert done.exit_code == 1
    assert "connection refused" in done.output


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://a:b:c"])
def test_what_is_no_address_is_said(url: str):
    done = run(url, "--once")
    assert done.exit_code == 2
    assert "address" in done.output


def test_the_last_figures_stay_and_are_marked_until_new_ones_come(stalled: LiveDocument):
    shown: list[str] = []
    to_come = [top.Answer(stalled), top.Answer(None, "Gone."), top.Answer(stalled)]

    def show(frame: object) -> None:
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(frame)
        shown.append(console.export_text())

    with pytest.raises(IndexError):
        top.follow(lambda: to_come.pop(0), show, 0)
    assert ["NOT LIVE" in text for text in shown] == [False, True, False]
    assert FAST.name in shown[1]
