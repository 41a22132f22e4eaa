"""The units of work: one server under one stretch of load. Each is kept in a file of its own, so runs resume."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

from fidelity.live import kernel_s

from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.dispatch import run_open_loop
from sarathi_plugin.load.summary import fluid_shares, percentile_ns, summarise
from sarathi_plugin.workload.kinds import make_trace
from sarathi_plugin.workload.synthetic import workload_of

if TYPE_CHECKING:
    from pathlib import Path

    from sarathi_plugin.load.server import RunningServer
    from sarathi_plugin.load.targets import Targets
    from sarathi_plugin.records import RequestTimeline
    from sarathi_plugin.workload.model import Workload

SCALE = 0.25
"""Of the lengths of the traffic, for the tiny model."""

CHATS = "sharegpt-like"

SESSIONS = ("chat-sessions", "agentic")
"""Traffic whose prompts repeat what was said before: servers cache prefixes."""

LAG_LIMIT_MS = 20.0
"""A run whose client sent its slowest hundredth later than this measured itself: it is marked."""

KERNEL_LIMIT = 0.1
"""So is one around which the speed of the machine moved by more."""

LONGEST_REQUEST_S = 600.0


@dataclass(frozen=True, slots=True)
class Unit:
    """part: of the bench. arm: who serves. Under one seed every arm gets the same requests at the same times.

    traffic: a kind. scale: of its lengths. promise: see ``servers.Promise.key``.
    """

    part: str
    arm: str
    rate: float
    repeat: int
    seed: int
    requests: int
    scale: float
    promise: tuple[float | str, ...]
    traffic: str = CHATS

    @property
    def file(self) -> str:
        """Its result's file name."""
        return f"{self.part}-{self.arm}-{self.rate:.4f}-{self.repeat}.json"

    @property
    def expected_s(self) -> float:
        """About how long it takes, seconds."""
        return self.requests / self.rate + 15

    def workload(self) -> Workload:
        """The same prompts whenever it is asked; at another rate, of the same lengths and other tokens.

        Otherwise a server would have in its cache what a search has sent it before.
        """
        trace = make_trace(self.traffic, rate=self.rate, count=self.requests, seed=self.seed)
        return workload_of(trace.resized(self.scale, self.scale), crc32(f"{self.seed} {self.rate}".encode()))


class Store:
    """Results on disk; one of other settings under the same name does not count."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, unit: Unit) -> dict[str, Any] | None:
        """A result from before."""
        path = self._folder / unit.file
        if not path.is_file():
            return None
        data: dict[str, Any] = json.loads(path.read_text())
        return data["result"] if data["unit"] == json.loads(json.dumps(asdict(unit))) else None

    def put(self, unit: Unit, result: dict[str, Any]) -> None:
        """Keep a result; whole or not at all."""
        path = self._folder / unit.file
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"unit": asdict(unit), "result": result}, indent=1) + "\n")
        part.replace(path)


def measure(unit: Unit, server: RunningServer, targets: Targets) -> dict[str, Any]:
    """Load the server, wait for every answer; figures as plain data."""
    client = StreamingClient(
        Endpoint(
            server.url,
            server.name,
            read_timeout_s=LONGEST_REQUEST_S,
            total_timeout_s=LONGEST_REQUEST_S,
        ),
        targets,
    )
    workload = unit.workload()
    before = kernel_s()
    result = run_open_loop(workload, client.send)
    after = kernel_s()
    found = figures(result.timelines)
    found["dispatch_lag_p99_ms"] = round(result.dispatch_lag_p99_ns / 1e6, 3)
    found["kernel_ms"] = [round(1e3 * before, 4), round(1e3 * after, 4)]
    found["ended"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    found["marked"] = marks(found)
    return found


def figures(timelines: tuple[RequestTimeline, ...]) -> dict[str, Any]:
    """What is compared; times in ms. fluidity_index: of all deadlines; fluidity_mean: of the requests' own.

    fluid_by_class: share of the requests of each SLO class, by its name.
    """
    summary = summarise(timelines)
    first = [t.ttft_ns for t in timelines if t.ttft_ns is not None]
    gaps = [gap for t in timelines for gap in t.gaps_ns]
    found: dict[str, Any] = {
        "fluid_share": summary.fluid_share,
        "fluid_by_class": dict(sorted(fluid_shares(timelines).items())),
        "fluidity_index": summary.fluidity_index,
        "fluidity_mean": sum(t.fluidity_index for t in timelines) / len(timelines),
        "longest_freeze_ms": milliseconds(summary.longest_freeze_ns),
        "tokens_per_s": round(summary.tokens_per_s, 1),
        "errors": summary.errors,
    }
    for name, values in (("ttft", first), ("tbt", gaps)):
        for q in (50, 90, 99):
            found[f"{name}_p{q}_ms"] = milliseconds(percentile_ns(values, q))
    return found


def milliseconds(ns: int | None) -> float | None:
    """Rounded to microseconds; None stays."""
    return None if ns is None else round(ns / 1e6, 3)


def marks(found: dict[str, Any]) -> list[str]:
    """Why a run should not be trusted; empty when nothing is known against it."""
    before, after = found["kernel_ms"]
    reasons = []
    if found["dispatch_lag_p99_ms"] > LAG_LIMIT_MS:
        reasons.append(f"the client sent up to {found['dispatch_lag_p99_ms']:.0f} ms late")
    if abs(after / before - 1) > KERNEL_LIMIT:
        reasons.append(f"the machine's speed moved by {abs(after / before - 1):.0%}")
    if found["errors"]:
        reasons.append(f"{found['errors']} requests failed")
    return reasons
