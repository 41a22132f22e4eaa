"""One streaming client for OpenAI-compatible servers, synchronous, on ``requests``.

Synchronous so that it runs unchanged in a thread and in a greenlet. It never raises for what a server does: every
request ends as a timeline, a failed one with status and reason.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from sarathi_plugin.address import authorization
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.load.failures import root, was_reset
from sarathi_plugin.load.request_body import request_body
from sarathi_plugin.load.sse import SseError, SseParser
from sarathi_plugin.load.stream import CompletionStream, StreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sarathi_plugin.load.targets import Targets
    from sarathi_plugin.load.under_way import UnderWay
    from sarathi_plugin.records import RequestStatus, RequestTimeline
    from sarathi_plugin.workload.model import ScheduledRequest

KEY = "OPENAI_API_KEY"
READ_BYTES = 65_536
IDLE_S = 2.0
"""Longest rest of a connection that is used again: servers close theirs after about five seconds."""
DRAIN_S = 0.5
"""How long the end of a stream may take to come after its last event."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server to talk to.

    url: its root, without ``/v1``. vllm: it understands vLLM's extensions (running usage, ``ignore_eos``,
    ``vllm_xargs``). read_timeout_s: longest silence; total_timeout_s: longest request, from its sending.
    """

    url: str
    model: str
    vllm: bool = True
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 300.0
    total_timeout_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one request: its timeline, the text it was answered with, and the HTTP status (0: none).

    token_ids: of the answer, where they were asked for and told.
    """

    request: ScheduledRequest
    timeline: RequestTimeline
    text: str = ""
    http_status: int = 0
    token_ids: tuple[int, ...] = ()


class Interrupted(BaseException):
    """Thrown into a request from outside (a greenlet can be): it ends as a timeline of what came so far."""


class _RequestError(Exception):
    """A request went wrong; becomes a timeline."""

    def __init__(self, status: RequestStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class StreamingClient:
    """Sends requests to one endpoint and times every token. Safe to share between threads.

    Connections are used again. X-Request-Id ends in the request's id; vLLM takes it up in its own.
    ``under_way`` holds what waits for its next token; ``resent`` counts the requests that went out a second time.
    The API key is read from the environment variable OPENAI_API_KEY and from nowhere else; proxies and netrc files
    of the environment are not used. Raises ConfigError for a key that no header can carry.
    """

    def __init__(
        self, endpoint: Endpoint, targets: Targets, *, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.endpoint = endpoint
        self.targets = targets
        self.under_way: dict[str, UnderWay] = {}
        self.resent = 0
        self._counting = threading.Lock()
        self._clock = clock
        self._run = secrets.token_hex(4)
        self._idle: deque[tuple[requests.Session, float]] = deque()
        self._headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", **authorization(KEY)}

    def send(self, request: ScheduledRequest, arrival_ns: int | None = None) -> Outcome:
        """Send one request and read its answer to the end.

        arrival_ns: when it was meant to be sent (now, if not given); deadlines run from there.
        """
        sent_ns = self._clock()
        stream = CompletionStream()
        status: RequestStatus = "finished"
        reason, http_status, end_ns, first_byte_ns = "", 0, 0, None
        begin_ns = sent_ns if arrival_ns is None else arrival_ns
        self.under_way[request.request_id] = self.targets.under_way(request, stream, begin_ns)
        try:
            with self._session() as (session, rested), self._answer(session, request, rested) as response:
                first_byte_ns = self._clock()
                http_status = response.status_code
                self._read(response, stream, sent_ns)
                end_ns = self._clock()
                _drain(response)
            if stream.finish_reason == "abort":
                status, reason = "aborted", "the server aborted the request"
        except _RequestError as failure:
            status, reason = failure.status, str(failure)
        except Interrupted as stop:
            if not end_ns:
                status, reason = "aborted", f"stopped: {stop}"
        finally:
            self.under_way.pop(request.request_id, None)
        timeline = self.targets.timeline(
            request,
            stream,
            arrival_ns=begin_ns,
            sent_ns=sent_ns,
            end_ns=end_ns or self._clock(),
            status=status,
            error=reason,
            first_byte_ns=first_byte_ns,
        )
        return Outcome(request, timeline, stream.text, http_status, tuple(stream.token_ids))

    @contextlib.contextmanager
    def _session(self) -> Iterator[tuple[requests.Session, bool]]:
        """A session that no other request uses, and whether it brings a connection that rested only a moment."""
        rested = self._rested()
        session = rested or requests.Session()
        session.trust_env = False
        try:
            yield session, rested is not None
        except BaseException:
            session.close()
            raise
        session.cookies.clear()
        self._idle.append((session, time.monotonic()))

    def _rested(self) -> requests.Session | None:
        """The session used last, if that is a moment ago; closes those that rested longer."""
        with contextlib.suppress(IndexError):  # none, or another thread was quicker
            while time.monotonic() - self._idle[0][1] > IDLE_S:
                self._idle.popleft()[0].close()
            return self._idle.pop()[0]
        return None

    def _answer(
        self, session: requests.Session, request: ScheduledRequest, rested: bool
    ) -> requests.Response:
        """The head of the answer. Raises _RequestError.

        A server may close a rested connection in the very moment it is used again, without having read the request
        (RFC 9112, section 9.3.1): then the request goes out once more, on a connection of its own.
        """
        try:
            return self._post(session, request)
        except _RequestError as failure:
            if not (rested and was_reset(failure)):
                raise
            with self._counting:
                self.resent += 1
            session.close()  # its connections; it makes new ones
            return self._post(session, request)

    def _post(self, session: requests.Session, request: ScheduledRequest) -> requests.Response:
        end = self.endpoint
        path = "/v1/chat/completions" if request.is_chat else "/v1/completions"
        try:
            return session.post(
                end.url.rstrip("/") + path,
                json=request_body(request, end.model, vllm=end.vllm),
                headers=self._headers | {"X-Request-Id": f"{self._run}-{quote(request.request_id)}"},
                stream=True,
                timeout=(end.connect_timeout_s, min(end.read_timeout_s, end.total_timeout_s)),
                allow_redirects=False,
            )
        except requests.exceptions.ConnectTimeout as error:
            raise _RequestError(
                "timeout", f"connect-timeout: no connection in {end.connect_timeout_s:g} s"
            ) from error
        except requests.exceptions.ReadTimeout as error:
            raise _RequestError("timeout", self._silence()) from error
        except requests.exceptions.ConnectionError as error:
            kind = "reset" if was_reset(error) else "connect"
            raise _RequestError("error", f"{kind}: {root(error)}") from error
        except (requests.exceptions.RequestException, ValueError) as error:
            raise _RequestError("error", f"request: {error}") from error

    def _read(self, response: requests.Response, stream: CompletionStream, sent_ns: int) -> None:
        """Read events until the server is through. Raises _RequestError."""
        if response.status_code != 200:
            raise _RequestError("error", f"http {response.status_code}: {self._body(response)}")
        parser = SseParser()
        limit_ns = sent_ns + round(self.endpoint.total_timeout_s * NS_PER_S)
        while not stream.done:
            chunk = self._chunk(response, len(stream.token_ns))
            now_ns = self._clock()
            if not chunk:
                break
            try:
                for event in parser.feed(chunk):
                    stream.take(event, now_ns)
            except SseError as error:
                raise _RequestError("error", f"malformed: {error}") from error
            except StreamError as error:
                raise _RequestError("error", str(error)) from error
            if now_ns > limit_ns and not stream.done:
                raise _RequestError("timeout", f"timeout: not done in {self.endpoint.total_timeout_s:g} s")
        check_end(stream, pending=parser.pending)

    def _chunk(self, response: requests.Response, tokens: int) -> bytes:
        """The bytes that are there, as soon as some are; nothing at the end. Raises _RequestError."""
        try:
            return bytes(response.raw.read1(READ_BYTES))
        except (ReadTimeoutError, TimeoutError) as error:
            raise _RequestError("timeout", self._silence()) from error
        except (HTTPError, OSError) as error:
            raise _RequestError(
                "error", f"reset: connection broke after {tokens} tokens: {root(error)}"
            ) from error

    def _body(self, response: requests.Response) -> str:
        try:
            return " ".join(response.text.split())[:300]
        except requests.exceptions.RequestException as error:
            return f"(unreadable: {root(error)})"

    def _silence(self) -> str:
        return f"read-timeout: no bytes for {min(self.endpoint.read_timeout_s, self.endpoint.total_timeout_s):g} s"


def _drain(response: requests.Response) -> None:
    """Read what follows the last event (the end of the HTTP body), so that the connection can be used again."""
    connection = response.raw.connection
    if connection is not None and connection.sock is not None:
        connection.sock.settimeout(DRAIN_S)
        with contextlib.suppress(HTTPError, OSError):  # then it is closed, and the next request makes its own
            response.raw.read1(READ_BYTES)


def check_end(stream: CompletionStream, *, pending: bool) -> None:
    """Raise _RequestError unless the stream came to a proper end with at least one token."""
    tokens = len(stream.token_ns)
    if stream.events == 0 and pending:
        raise _RequestError("error", "malformed: the answer holds no server-sent event")
    if not stream.complete:
        where = "inside an event" if pending else "without finish_reason or [DONE]"
        raise _RequestError("error", f"truncated: the stream ended {where} after {tokens} tokens")
    if tokens == 0 and stream.finish_reason != "abort":
        raise _RequestError("error", "empty: the stream ended properly but brought no token")
