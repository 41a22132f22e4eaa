"""Reads what ``--sarathi-record`` wrote."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import StepShape
from sarathi_plugin.records import RequestTimeline, StepRecord
from sarathi_plugin.telemetry.journal import EVENTS, Event

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass
class Recording:
    """One engine's run. head: what served; step_time: the last state of the step-time model; events: the journal.

    cut_off: the file ends in the middle of what was being written; all before it is here.
    """

    head: dict[str, Any] = field(default_factory=dict)
    steps: list[StepRecord] = field(default_factory=list)
    timelines: list[RequestTimeline] = field(default_factory=list)
    step_time: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    cut_off: bool = False


def read_recording(path: Path) -> Recording:
    """A recording, also one of a server that was killed. Raises ConfigError."""
    found = Recording()
    line = 1
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for text in file:
                _take(found, json.loads(text))
                line += 1
    except EOFError:
        found.cut_off = True
    except json.JSONDecodeError as error:
        raise _damaged(path, line, f"{error.msg} at column {error.pos + 1}") from error
    except (UnicodeDecodeError, zlib.error) as error:
        raise _damaged(path, line, str(error)) from error
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile) and line > 1:
            raise _damaged(path, line, str(error)) from error
        if isinstance(error, gzip.BadGzipFile):
            raise ConfigError(f"{path} is not a recording: give a file of --sarathi-record.") from error
        raise ConfigError(f"Cannot read the recording {path}: {error.strerror or error}.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} is not a recording of this version: line {line}: {error}.") from error
    return found


def _damaged(path: Path, line: int, why: str) -> ConfigError:
    return ConfigError(f"{path} is damaged in line {line}, or not a recording: {why}.")


def tell_cut_off(path: Path, found: Recording, warn: Callable[[str], None]) -> None:
    """Say so when the file was cut off, and how far it was read."""
    if found.cut_off:
        until = f"up to step {found.steps[-1].step}" if found.steps else "no step"
        warn(f"{path} is cut off; read {until}")


def _take(found: Recording, data: dict[str, Any]) -> None:
    kind = data.pop("type")
    if kind == "step":
        found.steps.append(StepRecord(**(data | {"shape": StepShape(**data["shape"])})))
    elif kind == "request":
        found.timelines.append(RequestTimeline(**(data | {"token_ns": tuple(data["token_ns"])})))
    elif kind in EVENTS:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        found.events.append(EVENTS[kind](**values))
    elif kind == "head":
        found.head = data
    elif kind == "step_time":
        found.step_time = data
    else:
        raise ValueError(f"it has a line of type {kind!r}")
