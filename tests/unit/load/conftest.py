"""A small HTTP server that stands in for broken and foreign servers, which vLLM will not be for us."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sarathi_plugin.core import NS_PER_MS, SloClass
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.workload.model import ScheduledRequest

Script = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers every POST with the script of its server; scripts use the methods below."""

    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        self.server.bodies.append(json.loads(self.rfile.read(length) or b"null"))
        self.server.headers.append((self.path, dict(self.headers)))
        self.server.script(self)

    def begin(self, *, chunked=True):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self.chunked = chunked

    def raw(self, data: bytes):
        """Bytes of the stream, sent at once as a piece of their own."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data)
        self.wfile.flush()

    def event(self, data):
        text = data if isinstance(data, str) else json.dumps(data)
        self.raw(f"data: {text}\n\n".encode())

    def token(self, text="x", total=None, finish=None, prompt=7):
        """One completion event; ``total`` adds vLLM's running usage."""
        event = {"choices": [{"text": text, "finish_reason": finish}]}
        if total is not None:
            event["usage"] = {"prompt_tokens": prompt, "completion_tokens": total}
        self.event(event)

    def end(self):
        """The proper end of the body."""
        if self.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def reset(self):
        """Break the connection with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_):
        pass


class StandIn(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: Script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.bodies: list[dict] = []
        self.headers: list[tuple[str, dict]] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        """Scripts break connections on purpose."""


@pytest.fixture
def stand_in() -> Iterator[Callable[[Script], StandIn]]:
    """Starts stand-in servers; stops them after the test."""
    running = []

    def start(script: Script) -> StandIn:
        server = StandIn(script)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


SLO = SloClass("standard", 100 * NS_PER_MS, 1000 * NS_PER_MS)
TARGETS = Targets(SLO, PrefillCurve(0.1, 0.01, 0.0))


@pytest.fixture
def targets() -> Targets:
    return TARGETS


@pytest.fixture
def make_client():
    def make(url: str, **limits) -> StreamingClient:
        return StreamingClient(Endpoint(url, "m", **limits), TARGETS)

    return make


@pytest.fixture
def request_for():
    def make(prompt="Hello", **fields) -> ScheduledRequest:
        known = {"request_id": "r", "offset_ns": 0, "prompt": prompt, "max_tokens": 8}
        return ScheduledRequest(**(known | fields))

    return make
