"""The forms in which traces are published: which columns they have and how a row becomes a request."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from sarathi_plugin.config import ConfigError, Strict, explain
from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.workload.trace import Segment, TraceRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOONCAKE_BLOCK = 512
"""Tokens that one of Mooncake's ``hash_ids`` stands for."""

INT64 = 2**63
"""Beyond what 64 bits hold, signed."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = dict[str, Any]


class Form(NamedTuple):
    """A form of trace, known by its columns.

    read: a request from a row, the id to give it and its place (file and line, for errors); its ``offset_ns`` is on
    the file's clock. None for a row to leave out. Raises ConfigError.
    """

    name: str
    columns: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Row, str, str], TraceRequest | None]

    def __str__(self) -> str:
        optional = f", optional {', '.join(self.optional)}" if self.optional else ""
        return f"{self.name} ({', '.join(self.columns)}{optional})"


class OwnRow(Strict):
    """A line of our own form: the fields of ``TraceRequest``."""

    request_id: str
    offset_ns: int = Field(ge=0)
    prompt_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    slo_class: str = ""
    kind: str = ""
    priority: int = 0
    segments: tuple[Segment, ...] = ()
    abort_ns: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        parts = [segment.tokens for segment in self.segments]
        if parts and (min(parts) < 1 or sum(parts) != self.prompt_tokens):
            raise ValueError(
                f"the tokens of the segments, {parts}, must each be at least one and add up to prompt_tokens, "
                f"{self.prompt_tokens}"
            )
        if not all(_names_content(segment.content) for segment in self.segments):
            raise ValueError("the contents of segments must be whole numbers of 64 bits")
        return self


def find_form(columns: Iterable[str], place: str) -> Form:
    """The form that has these columns. Raises ConfigError that lists what is known."""
    given = set(columns)
    fitting = [form for form in FORMS if given.issuperset(form.columns)]
    if not fitting:
        known = "; ".join(str(form) for form in FORMS)
        found = ", ".join(sorted(given))
        raise ConfigError(f"{place}: the columns {found} are not those of a trace: known are {known}.")
    check_columns(fitting[0], given, place)
    return fitting[0]


def check_columns(form: Form, given: Iterable[str], place: str) -> None:
    """Raise ConfigError when a row lacks a column of its form, or has one that the form does not know."""
    given = set(given)
    missing = [column for column in form.columns if column not in given]
    if missing:
        raise ConfigError(f"{place}: {', '.join(missing)} missing: this file is {form}.")
    unknown = sorted(given.difference(form.columns, form.optional))
    if unknown:
        raise ConfigError(f"{place}: unknown column {', '.join(unknown)}: this file is {form}.")


def _own(row: Row, _request_id: str, place: str) -> TraceRequest:
    try:
        return TraceRequest(**dict(OwnRow.model_validate(row)))
    except ValidationError as error:
        raise ConfigError(explain(error, place)) from error


def _azure(row: Row, request_id: str, place: str) -> TraceRequest:
    text = str(row["TIMESTAMP"])
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{place}: TIMESTAMP must be a date and time such as 2023-11-16 18:15:46.68, not {text!r}."
        ) from error
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH
    return TraceRequest(
        request_id=request_id,
        offset_ns=((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000,
        prompt_tokens=_tokens(row, "ContextTokens", place),
        output_tokens=_tokens(row, "GeneratedTokens", place),
    )


def _vidur(row: Row, request_id: str, place: str) -> TraceRequest:
    return TraceRequest(
        request_id=request_id,
        offset_ns=_time_ns(row, "arrived_at", NS_PER_S, place) if "arrived_at" in row else 0,
        prompt_tokens=_tokens(row, "num_prefill_tokens", place),
        output_tokens=_tokens(row, "num_decode_tokens", place),
    )


def _burstgpt(row: Row, request_id: str, place: str) -> TraceRequest | None:
    if _number(row, "Response tokens", place) == 0:
        return None  # how BurstGPT marks a request that failed
    return TraceRequest(
        request_id=request_id,
        offset_ns=_time_ns(row, "Timestamp", NS_PER_S, place),
        prompt_tokens=_tokens(row, "Request tokens", place),
        output_tokens=_tokens(row, "Response tokens", place),
        kind=str(row["Log Type"]),
    )


def _mooncake(row: Row, request_id: str, place: str) -> TraceRequest:
    prompt = _tokens(row, "input_length", place)
    hashes = row["hash_ids"]
    blocks = -(-prompt // MOONCAKE_BLOCK)
    if not isinstance(hashes, list) or not all(type(item) is int for item in hashes) or len(hashes) != blocks:
        raise ConfigError(
            f"{place}: hash_ids must list {blocks} whole numbers for an input_length of {prompt}, one for each "
            f"{MOONCAKE_BLOCK} tokens."
        )
    if not all(map(_names_content, hashes)):
        raise ConfigError(f"{place}: hash_ids must be whole numbers of 64 bits.")
    whole = [Segment(item, MOONCAKE_BLOCK) for item in hashes[:-1]]
    return TraceRequest(
        request_id=request_id,
        offset_ns=_time_ns(row, "timestamp", NS_PER_MS, place),
        prompt_tokens=prompt,
        output_tokens=_tokens(row, "output_length", place),
        segments=(*whole, Segment(hashes[-1], prompt - MOONCAKE_BLOCK * (blocks - 1))),
    )


def _number(row: Row, column: str, place: str) -> float:
    value = row[column]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{place}: {column} must be a number, not {value!r}.")
    return number


def _time_ns(row: Row, column: str, unit_ns: int, place: str) -> int:
    """A time in nanoseconds, on the clock of the file: any that 64 bits hold."""
    number = _number(row, column, place)
    if not abs(number) < INT64 / unit_ns:
        raise ConfigError(
            f"{place}: {column} must be a time within 292 years of its clock's zero, not {row[column]!r}."
        )
    return round(number * unit_ns)


def _names_content(number: int) -> bool:
    """Whether a number can name a content: one of 64 bits, signed."""
    return -INT64 <= number < INT64


def _tokens(row: Row, column: str, place: str) -> int:
    number = _number(row, column, place)
    if number != int(number) or number < 1:
        raise ConfigError(
            f"{place}: {column} must be a whole number of tokens, at least one, not {row[column]!r}."
        )
    return int(number)


OWN = Form(
    "this project's",
    ("request_id", "offset_ns", "prompt_tokens", "output_tokens"),
    ("slo_class", "kind", "priority", "segments", "abort_ns"),
    _own,
)
FORMS = (
    OWN,
    Form("Azure", ("TIMESTAMP", "ContextTokens", "GeneratedTokens"), (), _azure),
    Form(
        "Vidur and Etalon",
        ("num_prefill_tokens", "num_decode_tokens"),
        ("arrived_at", "num_total_tokens", "pd_ratio"),
        _vidur,
    ),
    Form(
        "BurstGPT",
        ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type"),
        ("Session ID", "Elapsed time"),
        _burstgpt,
    ),
    Form("Mooncake", ("timestamp", "input_length", "output_length", "hash_ids"), (), _mooncake),
)
