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
    from pathlib import Path


@dataclass
class Recording:
    """One engine's run. head: what served; step_time: the last state of the step-time model; events: the journal."""

    head: dict[str, Any] = field(default_factory=dict)
    steps: list[StepRecord] = field(default_factory=list)
    timelines: list[RequestTimeline] = field(default_factory=list)
    step_time: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


def read_recording(path: Path) -> Recording:
    """A recording, also one of a server that was killed. Raises ConfigError."""
    found = Recording()
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                _take(found, json.loads(line))
    except EOFError:
        pass  # killed in the middle of a flush: all before it is whole
    except OSError as error:
        raise ConfigError(f"Cannot read the recording {path}: {error.strerror or error}.") from error
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
        raise ConfigError(f"{path} is not a recording of this version: {error}.") from error
    return found


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
