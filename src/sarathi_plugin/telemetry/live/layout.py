"""The shared file behind the live page: its columns, and how it is made and opened.

One writer (the engine), any number of readers (API servers). The writer takes no lock: it makes ``version`` odd while
it changes things, and a reader that met an odd or a changed version reads again. Everything is of fixed size.
"""

from __future__ import annotations

import mmap
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sarathi_plugin.telemetry.catalogue import LATENCY_BUCKETS
from sarathi_plugin.telemetry.snapshot import own_prefix, snapshot_path

STEPS = 1024
"""Steps kept."""
REQUESTS = 32
"""Requests kept: the latest that arrived."""
TOKENS = 256
"""Emissions kept of each of them."""
CHUNKS = 64
"""Prompt chunks kept of each of them."""
SECONDS = 660
"""Seconds of history: more than the longest window the page offers."""

NAME_BYTES = 64
BUCKETS = len(LATENCY_BUCKETS) + 1

CLASS_COUNTERS = (
    "deadlines_met", "deadlines_missed", "output_tokens", "fluid_requests", "finished", "aborted", "error", "timeout",
)  # fmt: skip
"""Per SLO class; the last four are ``requests_finished`` by status."""
CLASS_HISTOGRAMS = ("tbt_seconds", "ttft_seconds")
ENGINE_COUNTERS = (
    "preemptions", "relegations", "policy_fallbacks", "plugin_errors", "unknown_slo_class", "untracked_requests",
    "decodes_over_budget", "policy_disabled",
)  # fmt: skip
"""Per engine. policy_disabled: 1 after the policy was switched off for failing."""
PER_CLASS = len(CLASS_COUNTERS) + len(CLASS_HISTOGRAMS) * BUCKETS

WAITING, RUNNING, FINISHED, ABORTED, ERROR, TIMEOUT = range(6)
"""States of a kept request; its prompt may still be under way while it runs."""
STATES = ("waiting", "running", "finished", "aborted", "error", "timeout")

_i8 = np.int64
SCHEDULED = np.dtype(
    [(name, _i8) for name in (
        "step", "schedule_ns", "decode_rows", "prefill_tokens", "chunks", "predicted_ns", "budget", "running",
        "waiting", "free_blocks",
    )]
)  # fmt: skip
"""The step scheduled last; it runs unless ``done_step`` has reached it."""
HEAD = np.dtype(
    [
        *((name, _i8) for name in (
            "magic", "pid", "started_ns", "classes", "version", "total_blocks", "steps", "arrivals", "done_step",
            "done_ns",
        )),
        ("scheduled", SCHEDULED),
    ]
)  # fmt: skip
STEP = np.dtype(
    [(name, _i8) for name in (
        "step", "start_ns", "end_ns", "decode_tokens", "prefill_tokens", "chunks", "predicted_ns", "budget", "running",
        "waiting", "free_blocks", "fallback",
    )]
)  # fmt: skip
CHUNK = np.dtype([("step", _i8), ("tokens", _i8), ("start_ns", _i8), ("end_ns", _i8)])
"""end_ns: 0 until its step has been seen to end."""
REQUEST = np.dtype(
    [
        ("name", f"S{NAME_BYTES}"),
        *((name, _i8) for name in (
            "number", "slot", "slo_index", "state", "arrival_ns", "due_ns", "prompt_tokens", "max_tokens",
            "scheduled_ns", "first_ns", "end_ns", "tokens", "late", "missed", "emissions", "chunk_count",
        )),
        ("emission", _i8, (TOKENS,)),
        ("chunk", CHUNK, (CHUNKS,)),
    ]
)  # fmt: skip
"""number: counts arrivals from 1, 0 for an empty row. emission: 2 x time + 1 when late, a ring of ``emissions``."""


@cache
def file_type(classes: int) -> np.dtype[Any]:
    """The whole file, for so many SLO classes."""
    width = classes * PER_CLASS + len(ENGINE_COUNTERS)
    second = np.dtype(
        [
            ("second", _i8),
            ("running", _i8),
            ("waiting", _i8),
            ("free_blocks", _i8),
            ("totals", np.float64, (width,)),
        ]
    )
    return np.dtype(
        [
            ("head", HEAD),
            ("totals", np.float64, (width,)),
            ("steps", STEP, (STEPS,)),
            ("requests", REQUEST, (REQUESTS,)),
            ("seconds", second, (SECONDS,)),
        ]
    )


def live_path(session: str, engine_index: int) -> Path:
    """Where engine ``engine_index`` of the server ``session`` writes."""
    path = snapshot_path(session, engine_index)
    return path.with_name(path.name + ".live")


def create(path: Path, classes: int) -> np.ndarray[Any, Any]:
    """A new file, mapped, with nothing in it yet; readable by this user only. Raises OSError."""
    kind = file_type(classes)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, kind.itemsize)
        memory = mmap.mmap(descriptor, kind.itemsize)
    finally:
        os.close(descriptor)
    return np.frombuffer(memory, kind)


def open_file(path: Path, classes: int) -> np.ndarray[Any, Any] | None:
    """The reader's side; None while there is no complete file of this form."""
    kind = file_type(classes)
    try:
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), kind.itemsize, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    columns = np.frombuffer(memory, kind)
    return columns if columns["head"]["magic"][0] == kind.itemsize else None


def remove_stale() -> None:
    """Delete files that killed engines of this user left behind, in this container."""
    if not Path("/proc").exists():
        return
    for path in snapshot_path("x", 0).parent.glob(f"{own_prefix()}*.live"):
        try:
            head = np.fromfile(path, HEAD, 1)
        except OSError:
            continue
        if len(head) and head["magic"][0] and not Path(f"/proc/{head['pid'][0]}").exists():
            path.unlink(missing_ok=True)


def counter_places(classes: list[str]) -> dict[tuple[str, tuple[str, ...]], int]:
    """Where a metric of the catalogue (name, labels) lies in ``totals``; for a histogram, where its buckets begin."""
    places: dict[tuple[str, tuple[str, ...]], int] = {}
    for index, name in enumerate(classes):
        at = index * PER_CLASS
        for counter in CLASS_COUNTERS:
            by_status = counter in STATES
            places[("requests_finished", (name, counter)) if by_status else (counter, (name,))] = at
            at += 1
        for histogram in CLASS_HISTOGRAMS:
            places[histogram, (name,)] = at
            at += BUCKETS
    base = len(classes) * PER_CLASS
    places |= {(name, ()): base + i for i, name in enumerate(ENGINE_COUNTERS)}
    return places
