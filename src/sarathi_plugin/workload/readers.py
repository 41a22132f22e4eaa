"""Traces on disk, as CSV or JSON lines: published forms told apart by their columns, and our own, also written."""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.workload.forms import OWN, Form, Row, check_columns, find_form
from sarathi_plugin.workload.trace import Trace, TraceRequest

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_trace(path: str | Path, *, limit: int | None = None) -> Trace:
    """The requests of a trace file, the first ``limit`` of them if given.

    The first request of a published trace is moved to time zero; our own form keeps its times. Requests without
    arrival times all arrive at zero: give them some with ``with_arrivals``. Requests that BurstGPT marks as failed
    are left out. Raises ConfigError that names the file and line of the first mistake.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise ConfigError(f"A trace is read to at least one request, not {limit}.")
    requests: list[TraceRequest] = []
    lines: list[int] = []
    for line, form, row in _rows(path):
        place = f"{path} line {line}"
        request = form.read(row, f"{path.stem}-{len(requests)}", place)
        if request is None:
            continue
        if requests and request.offset_ns < requests[-1].offset_ns:
            early = (requests[-1].offset_ns - request.offset_ns) / NS_PER_S
            raise ConfigError(
                f"{place}: this request arrives {early:g} s before the one above it: sort the file by arrival time."
            )
        requests.append(request)
        lines.append(line)
        if len(requests) == limit:
            break
    if not requests:
        raise ConfigError(f"{path} holds no requests: a trace needs at least one.")
    start = 0 if form is OWN else requests[0].offset_ns
    moved = requests if start == 0 else [replace(r, offset_ns=r.offset_ns - start) for r in requests]
    return Trace(path.stem, tuple(moved), tuple(lines))


def write_trace(path: str | Path, trace: Trace) -> None:
    """Write a trace in our own form, one JSON object a line, fields at their defaults left out. Raises ConfigError."""
    optional = [(f.name, f.default) for f in fields(TraceRequest) if f.name in OWN.optional]
    with _told(Path(path), "write"), Path(path).open("w", encoding="utf-8") as file:
        for request in trace.requests:
            row = {name: getattr(request, name) for name in OWN.columns}
            values = ((name, getattr(request, name), default) for name, default in optional)
            row |= {name: value for name, value, default in values if value != default}
            file.write(json.dumps(row, separators=(",", ":")) + "\n")


def _rows(path: Path) -> Iterator[tuple[int, Form, Row]]:
    """Line number, form and columns of every row; blank lines do not count."""
    with _told(path, "read"), path.open(encoding="utf-8-sig", newline="") as file:
        number, text = next(((i, line) for i, line in enumerate(file, 1) if line.strip()), (0, ""))
        if not number:
            raise ConfigError(f"{path} is empty: a trace needs at least one request.")
        rows = _json_rows if text.lstrip().startswith("{") else _csv_rows
        yield from rows(path, number, text, file)


def _json_rows(path: Path, number: int, first: str, rest: TextIO) -> Iterator[tuple[int, Form, Row]]:
    form = None
    for line, text in enumerate(chain([first], rest), number):
        if not text.strip():
            continue
        place = f"{path} line {line}"
        try:
            row = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{place}: not valid JSON: {error}.") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{place}: every line must be a JSON object, not {text.strip()[:40]!r}.")
        form = form or find_form(row, place)
        check_columns(form, row, place)
        yield line, form, row


def _csv_rows(path: Path, number: int, first: str, rest: TextIO) -> Iterator[tuple[int, Form, Row]]:
    reader = csv.reader(chain([first], rest))
    try:
        header = [column.strip() for column in next(reader)]
        form = find_form(header, f"{path} line {number}")
        for row in reader:
            line = number - 1 + reader.line_num
            if not row:
                continue
            if len(row) != len(header):
                raise ConfigError(f"{path} line {line}: {len(row)} values for {len(header)} columns.")
            yield line, form, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ConfigError(f"{path} line {number - 1 + reader.line_num}: not valid CSV: {error}.") from error


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Turn what the system says about a file into a ConfigError."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"Cannot {what} {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file in UTF-8.") from error
