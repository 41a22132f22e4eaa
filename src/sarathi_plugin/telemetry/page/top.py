"""``sarathi top URL``: the live figures in a terminal, for an ssh session."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests
from pydantic import ValidationError
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sarathi_plugin.address import authorization, parts_of
from sarathi_plugin.config import ConfigError
from sarathi_plugin.telemetry.live.document import VERSION, LiveDocument

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from sarathi_plugin.telemetry.live.document import ClassLive, EngineLive, RequestLive

KEY = "VLLM_API_KEY"
"""Where the key comes from: on a command line others would see it."""
TIMEOUT_S = 5.0
BAD, WARN, GOOD = "bold red", "yellow", "green"


@dataclass(frozen=True)
class Answer:
    """A document, or one sentence on why there is none."""

    document: LiveDocument | None
    problem: str = ""


class Client:
    """Asks one server. url: its root. Raises ConfigError for a bad address, or a key that no header can carry."""

    def __init__(self, url: str) -> None:
        root = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/sarathi")
        if parts_of(root) is None:
            raise ConfigError(f"{url!r} is not the address of a server; give http://HOST:PORT.")
        self._url = f"{root}/sarathi/api"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update(authorization(KEY))

    def ask(self, slo_class: str | None = None) -> Answer:
        """The document now. Raises ConfigError when asking again cannot help."""
        try:
            found = self._session.get(
                self._url, params={"slo_class": slo_class} if slo_class else None, timeout=TIMEOUT_S
            )
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise ConfigError(f"{self._url} is not an address: {error}.") from error
        except requests.exceptions.RequestException as error:
            return Answer(
                None, f"No answer from {self._url} ({_why(error)}): it starts, restarts or is gone."
            )
        if found.status_code == 401:
            raise ConfigError(f"{self._url} needs the server's API key: set it as {KEY} in the environment.")
        if found.status_code == 404:
            raise ConfigError(
                f"There is no {self._url}: start the server with sarathi serve (docs/live-page.md)."
            )
        if found.status_code == 400:
            raise ConfigError(str(found.json()["error"]))
        if found.status_code != 200:
            return Answer(None, f"{self._url} answers {found.status_code}.")
        return read(found.content)


def read(content: bytes) -> Answer:
    """A document from JSON. Raises ConfigError when it speaks another version."""
    try:
        return Answer(LiveDocument.model_validate_json(content))
    except ValidationError as error:
        raise ConfigError(
            f"The server's answer is not version {VERSION} of the document; use the same sarathi-plugin on both sides."
        ) from error


def _why(error: Exception) -> str:
    if isinstance(error, requests.exceptions.Timeout):
        return "time-out"
    return (
        "connection refused or lost"
        if isinstance(error, requests.exceptions.ConnectionError)
        else type(error).__name__
    )


def top(
    url: str, *, every_s: float, once: bool, slo_class: str | None, console: Console | None = None
) -> bool:
    """Show a server until Ctrl-C, or one frame. Whether what was shown last was live. Raises ConfigError."""
    client = Client(url)
    console = console or Console()
    if once:
        answer = client.ask(slo_class)
        console.print(frame(answer, None))
        return answer.document is not None and answer.document.state == "live"
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        return follow(lambda: client.ask(slo_class), lambda shown: live.update(shown, refresh=True), every_s)


def follow(ask: Callable[[], Answer], show: Callable[[RenderableType], None], every_s: float) -> bool:
    """Ask and show, over and over. The last document stays, marked as old, while there is none."""
    last: LiveDocument | None = None
    while True:
        began = time.monotonic()
        answer = ask()
        last = answer.document or last
        show(frame(answer, last))
        time.sleep(max(0.05, every_s - (time.monotonic() - began)))


def frame(answer: Answer, last: LiveDocument | None) -> RenderableType:
    """One screen. last: shown, marked as not live, when the answer holds no document."""
    document = answer.document
    if document is None:
        if last is None:
            return Panel(Text(answer.problem, BAD), title="sarathi top", title_align="left")
        when = time.strftime("%H:%M:%S", time.localtime(last.unix_s))
        notice = Text(f"NOT LIVE. {answer.problem} What is below is from {when}.", BAD)
        return Group(Panel(notice, title="sarathi top", title_align="left"), *body(last, style="dim"))
    title = " · ".join(part for part in (document.model, document.policy, document.state) if part)
    head = Text(
        document.message or stall_line(document), BAD if document.message or stalled(document) else GOOD
    )
    parts = body(document) if any(e.state == "live" for e in document.engines) else []
    return Group(Panel(head, title=f"sarathi top: {title}", title_align="left"), *parts)


def stalled(document: LiveDocument) -> bool:
    """Whether any stream is past its deadline now."""
    return any(c.overdue.streams for c in document.classes)


def stall_line(document: LiveDocument) -> str:
    """The sentence at the top of a live screen."""
    streams = sum(c.overdue.streams for c in document.classes)
    worst = max((c.overdue.oldest_stream_s for c in document.classes), default=0.0)
    return (
        f"{streams} {'stream' if streams == 1 else 'streams'} overdue, the worst by {worst:.1f} s."
        if streams
        else "No stream is overdue."
    )


def body(document: LiveDocument, style: str = "") -> list[RenderableType]:
    """Tables of classes, engines and requests."""
    errors = document.errors
    told = Text(
        f"relegations {errors.relegations}  preemptions {errors.preemptions}  fallbacks {errors.policy_fallbacks}  "
        f"plugin errors {errors.plugin_errors}  unknown class {errors.unknown_slo_class}",
        style,
    )
    return [
        class_table(document.classes, style),
        Text(),
        latency_table(document.classes, document.window_s, style),
        Text(),
        engine_table(document.engines, style),
        told,
        Text(),
        request_table(document.requests[:8], style),
    ]


def _table(columns: str, style: str, padding: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, padding, 0, 0), style=style, header_style="bold")
    for column in columns.split("|"):
        left = column.endswith("<")
        wraps = column == "step now<"
        table.add_column(column.strip("<"), justify="left" if left else "right", no_wrap=not wraps)
    return table


def class_table(classes: list[ClassLive], style: str) -> Table:
    """Fluidity and lateness by class."""
    table = _table(
        "class<|fluid 10s|+late|1min|5min|overdue|worst|late 1st|tok/s|failed", style, 1
    )  # fits 80 columns
    for c in classes:
        now, late = c.fluidity, c.overdue
        table.add_row(
            c.name, share(now.last_10_s), share(now.last_10_s_with_overdue), share(now.last_60_s),
            share(now.last_300_s),
            Text(str(late.streams), BAD if late.streams else ""), f"{late.oldest_stream_s:.1f} s",
            Text(str(late.prompts), WARN if late.prompts else ""), f"{c.tokens_per_s:.1f}", str(c.errors + c.aborted),
        )  # fmt: skip
    return table


def latency_table(classes: list[ClassLive], window_s: int, style: str) -> Table:
    """Time between tokens and to the first by class."""
    table = _table(f"last {window_s} s<|TBT P50|TBT P99|TTFT P50|TTFT P99", style)
    for c in classes:
        table.add_row(c.name, *map(ms, (c.tbt.p50_ms, c.tbt.p99_ms, c.ttft.p50_ms, c.ttft.p99_ms)))
    return table


def engine_table(engines: list[EngineLive], style: str) -> Table:
    """What each engine does now."""
    table = _table("engine<|state<|running|waiting|KV|step now<", style)
    for e in engines:
        step = "idle" if e.state == "live" else e.message
        if e.step is not None:
            step = f"{e.step.decodes} decodes + {e.step.prefill_tokens} prompt tokens: {ms(e.step.running_ms)} so far"
            step += f", {ms(e.step.predicted_ms)} predicted" if e.step.predicted_ms is not None else ""
        used = "-" if e.kv_used is None else f"{e.kv_used:.0%}"
        counts = ["-" if n is None else str(n) for n in (e.running, e.waiting)]
        table.add_row(str(e.index), Text(e.state, GOOD if e.state == "live" else BAD), *counts, used, step)
    return table


def request_table(requests_: list[RequestLive], style: str) -> Table:
    """The latest requests."""
    table = _table("request<|class<|state<|prompt|tokens|TTFT|met|missed|overdue", style)
    for r in requests_:
        overdue = Text(ms(r.overdue_ms) if r.overdue_ms else "-", BAD if r.overdue_ms else "")
        cells = [
            f"#{r.key.partition(':')[2]}",
            r.slo_class,
            r.state,
            str(r.prompt_tokens),
            str(r.tokens),
            ms(r.ttft_ms),
        ]
        table.add_row(*cells, str(r.met), str(r.missed), overdue)
    return table


def share(value: float | None) -> str:
    """A fluidity-index."""
    return "-" if value is None else f"{value:.3f}"


def ms(value: float | None) -> str:
    """A duration in milliseconds, in the unit that suits it."""
    if value is None:
        return "-"
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.0f} ms"
