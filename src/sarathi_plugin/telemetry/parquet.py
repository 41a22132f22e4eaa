"""RequestTimelines and StepRecords as Parquet: one row each, columns as the fields are named, times in nanoseconds."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import StepShape
from sarathi_plugin.records import RequestTimeline, StepRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FLOATS = {"prefill_attention"}
TEXTS = {"request_id", "source", "slo_class", "status", "curve", "error", "limit"}


def write_timelines(path: Path, timelines: Sequence[RequestTimeline]) -> None:
    """Write timelines, token times as a list column; the same timelines give the same bytes. Raises OSError."""
    _write(
        path, [asdict(timeline) for timeline in timelines], [field.name for field in fields(RequestTimeline)]
    )


def read_timelines(path: Path) -> list[RequestTimeline]:
    """Timelines from a file that ``write_timelines`` wrote. Raises ConfigError."""
    with _reading(path, "timelines") as rows:
        return [RequestTimeline(**(row | {"token_ns": tuple(row["token_ns"])})) for row in rows]


def write_steps(path: Path, steps: Sequence[Sequence[StepRecord]]) -> None:
    """Write the steps of several engines, told apart by a column ``engine``. Raises OSError."""
    names = [field.name for field in fields(StepRecord) if field.name != "shape"]
    rows = []
    for engine, records in enumerate(steps):
        for record in records:
            row: dict[str, Any] = {"engine": engine, **{name: getattr(record, name) for name in names}}
            rows.append(row | record.shape._asdict())
    _write(path, rows, ["engine", *names, *StepShape._fields])


def read_steps(path: Path) -> list[list[StepRecord]]:
    """Steps by engine from a file that ``write_steps`` wrote. Raises ConfigError."""
    names = [field.name for field in fields(StepRecord) if field.name != "shape"]
    engines: dict[int, list[StepRecord]] = {}
    with _reading(path, "steps") as rows:
        for row in rows:
            shape = StepShape(**{name: row[name] for name in StepShape._fields})
            record = StepRecord(**{name: row[name] for name in names}, shape=shape)
            engines.setdefault(row["engine"], []).append(record)
    return [engines[number] for number in sorted(engines)]


@contextlib.contextmanager
def _reading(path: Path, what: str) -> Iterator[list[dict[str, Any]]]:
    """The rows of a file; it, or a row of another shape, that cannot be taken in becomes a ConfigError."""
    import polars

    try:
        yield polars.read_parquet(path).to_dicts()
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (polars.exceptions.PolarsError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path} is not a Parquet file of {what}: {reason}.") from error


def _write(path: Path, rows: list[dict[str, Any]], names: list[str]) -> None:
    import polars

    def kind(name: str) -> Any:
        if name == "token_ns":
            return polars.List(polars.Int64)
        if name in TEXTS:
            return polars.String
        if name == "fallback":
            return polars.Boolean
        return polars.Float64 if name in FLOATS else polars.Int64

    schema = {name: kind(name) for name in names}
    polars.DataFrame(rows, schema=schema, orient="row").write_parquet(path, compression="zstd")
