"""The recorder plugin: StepRecords and RequestTimelines to a file, from a thread that is not the engine's."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import itertools
import json
import logging
import os
import queue
import threading
import time
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.telemetry.journal import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sarathi_plugin.core import StepTimeModel
    from sarathi_plugin.records import RequestTimeline, StepRecord
    from sarathi_plugin.telemetry.journal import Event

logger = logging.getLogger(__name__)

FLUSH_S = 0.5
BACKLOG = 100_000
"""Records waiting for the disk; beyond it new ones are dropped and counted."""

MODEL_LINE_EVERY = 200


class Recorder:
    """Writes ``path`` (gzip, JSON lines): a head, then a line per step, finished request and journal event.

    path: gets ``.engineN`` before its suffix for engines beyond the first. What an earlier server recorded there is
    kept under a numbered name. Now and then, and at the end, a line says what the step-time model has learned and how
    many records were dropped.
    """

    def __init__(
        self, path: str, engine_index: int, head: Mapping[str, Any], model: StepTimeModel, started: int
    ) -> None:
        self.path = Path(path)
        if engine_index:
            self.path = marked(self.path, f"engine{engine_index}")
        self._head = {"type": "head", "format": 2, "started_unix_s": started, **head}
        self._model = model
        self._queue: queue.Queue[tuple[str, Any] | None] = queue.Queue(BACKLOG)
        self._dropped = 0
        self._lines = 0
        self._thread = threading.Thread(target=self._write, name="sarathi-recorder", daemon=True)

    @hookimpl
    def engine_started(self) -> None:
        """Open the file. Raises OSError, which switches the recorder off and is logged."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if kept := keep_aside(self.path):
            logger.warning("%s held an earlier recording, which is now %s.", self.path, kept)
        self.path.open("wb").close()
        self._thread.start()

    @hookimpl
    def observe_step(self, record: StepRecord) -> None:
        """Queue a step."""
        self._put("step", record)

    @hookimpl
    def request_finished(self, timeline: RequestTimeline) -> None:
        """Queue a request."""
        self._put("request", timeline)

    def note(self, event: Event) -> None:
        """Queue an event of the journal."""
        self._put(KINDS[type(event)], event)

    @hookimpl
    def engine_stopping(self) -> None:
        """Write what is queued and close."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout=10)

    def _put(self, kind: str, thing: Any) -> None:
        try:
            self._queue.put_nowait((kind, thing))
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        """Whole gzip members, one per flush.

        A server that is killed (vLLM's default on SIGTERM) leaves a file that is complete up to the last flush.
        """
        try:
            with self.path.open("ab") as file:
                lines = [json.dumps(self._head) + "\n"]
                running = True
                while running:
                    running = self._gather(lines)
                    if lines:
                        file.write(gzip.compress("".join(lines).encode(), compresslevel=4))
                        file.flush()
                        lines.clear()
        except Exception:
            logger.exception("Recording to %s failed; the engine goes on without.", self.path)

    def _gather(self, lines: list[str]) -> bool:
        """Lines until the next flush is due; False after the last."""
        due = time.monotonic() + FLUSH_S
        while (left := due - time.monotonic()) > 0:
            try:
                item = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if item is None:
                lines.append(self._model_line())
                return False
            lines.append(to_line(*item))
            self._lines += 1
            if self._lines % MODEL_LINE_EVERY == 0:
                lines.append(self._model_line())
        return True

    def _model_line(self) -> str:
        coefficients = getattr(self._model, "coefficients", None)
        data = {"type": "step_time", "coefficients": coefficients, "margin": self._model.margin}
        return json.dumps(data | {"dropped": self._dropped}, default=_plain) + "\n"


def marked(path: Path, mark: str) -> Path:
    """The path with a mark before its suffix: run.jsonl.gz becomes run.MARK.jsonl.gz."""
    stem, dot, suffix = path.name.partition(".")
    return path.with_name(f"{stem}.{mark}{dot}{suffix}")


def keep_aside(path: Path) -> Path | None:
    """Move a file that holds something to the next free numbered name, which is returned. Raises OSError."""
    if not path.is_file() or not path.stat().st_size:
        return None
    free = next(name for n in itertools.count(1) if not os.path.lexists(name := marked(path, str(n))))
    return path.rename(free)


def check_path(path: str) -> None:
    """Raises ConfigError when no recording can ever be written there; touches nothing."""
    file = Path(path)
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            file.stat()
        nearest = next((folder for folder in file.absolute().parents if folder.exists()), file)
        if file.is_dir():
            problem = "it is a folder"
        elif not nearest.is_dir():
            problem = f"{nearest} is not a folder"
        elif not os.access(file if file.exists() else nearest, os.W_OK):
            problem = "permission denied"
        else:
            return
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    raise ConfigError(
        f"Cannot record to {path}: {problem}; give --sarathi-record a file that can be written."
    )


def to_line(kind: str, thing: StepRecord | RequestTimeline | Event) -> str:
    """One record as a JSON line."""
    data = dataclasses.asdict(thing)
    if kind == "step":
        data["shape"] = thing.shape._asdict()  # type: ignore[union-attr]
    return json.dumps({"type": kind, **data}, separators=(",", ":"), default=_plain) + "\n"


def _plain(thing: object) -> int | float | str:
    """What a policy of somebody else's put into a plan, numpy's numbers above all: no reason to end a recording."""
    if isinstance(thing, Integral):
        return int(thing)
    return float(thing) if isinstance(thing, Real) else str(thing)
