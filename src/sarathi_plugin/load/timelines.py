"""RequestTimelines on disk: one JSON object a line, gzip-compressed, same timelines same bytes."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.records import RequestTimeline

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_FIELDS = {field.name for field in fields(RequestTimeline)}
_OPTIONAL = {field.name for field in fields(RequestTimeline) if field.default is not MISSING}


def write_timelines(path: Path, timelines: Iterable[RequestTimeline]) -> None:
    """Write timelines to ``path`` (.jsonl.gz), replacing it."""
    with path.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
        for timeline in timelines:
            file.write(json.dumps(asdict(timeline), separators=(",", ":")).encode() + b"\n")


def read_timelines(path: Path) -> list[RequestTimeline]:
    """Timelines from a file that ``write_timelines`` wrote. Raises ConfigError with the line that is wrong."""
    timelines: list[RequestTimeline] = []
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                timelines.append(_timeline(json.loads(line)))  # noqa: PERF401  (its length names a bad line)
    except gzip.BadGzipFile as error:
        raise ConfigError(f"{path} is not a gzip file of timelines.") from error
    except (ValueError, TypeError, zlib.error) as error:
        raise ConfigError(
            f"{path}: line {len(timelines) + 1} is not a request timeline ({error})."
        ) from error
    except (OSError, EOFError) as error:
        raise ConfigError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error
    return timelines


def _timeline(data: Any) -> RequestTimeline:
    if not isinstance(data, dict) or (
        wrong := _FIELDS.symmetric_difference(data) - (_OPTIONAL - data.keys())
    ):
        names = ", ".join(sorted(wrong)) if isinstance(data, dict) else "no object"
        raise ValueError(f"missing or unknown: {names}")
    return RequestTimeline(**(data | {"token_ns": tuple(data["token_ns"])}))
