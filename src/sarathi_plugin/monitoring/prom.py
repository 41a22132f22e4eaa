"""The few questions we ask of a Prometheus over HTTP."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import requests

from sarathi_plugin.config import ConfigError

Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class Series:
    """One series: its labels and (Unix seconds, value) samples, NaN left out."""

    labels: Labels
    samples: tuple[tuple[float, float], ...]


class Prometheus:
    """A Prometheus server by its root URL. Every method raises ConfigError: one sentence, also for a bad query."""

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        if not url.startswith(("http://", "https://")) or "@" in url:
            raise ConfigError(
                f"Give the address of Prometheus as http://HOST:PORT, not {url.rsplit('@', maxsplit=1)[-1]!r}."
            )
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.trust_env = False

    def instant(self, expr: str, at: float | None = None) -> list[Series]:
        """An expression now, or at a Unix time."""
        given = {"query": expr} if at is None else {"query": expr, "time": str(at)}
        result = self._ask("query", given)
        if result["resultType"] == "scalar":
            return [_series({"metric": {}, "value": result["result"]})]
        return [_series(found) for found in result["result"]]

    def over(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """An expression over time; all in seconds."""
        given = {"query": expr, "start": str(start), "end": str(end), "step": str(step)}
        return [_series(found) for found in self._ask("query_range", given)["result"]]

    def label_values(self, label: str, selector: str, start: float, end: float) -> list[str]:
        """Values of a label over the series of a selector in a time range, sorted."""
        given = {"match[]": selector, "start": str(start), "end": str(end)}
        return sorted(self._ask(f"label/{label}/values", given, post=False))

    def scrape_interval(self, default: float = 15.0) -> float:
        """The longest scrape interval of all targets, seconds."""
        targets = self._ask("targets", {"state": "active"}, post=False)["activeTargets"]
        return max((_seconds(target.get("scrapeInterval", "")) for target in targets), default=0) or default

    def _ask(self, path: str, given: dict[str, str], *, post: bool = True) -> Any:
        url = f"{self.url}/api/v1/{path}"
        try:
            if post:
                answer = self._session.post(url, data=given, timeout=self._timeout_s)
            else:
                answer = self._session.get(url, params=given, timeout=self._timeout_s)
        except requests.RequestException as error:
            raise ConfigError(
                f"Prometheus does not answer at {self.url} ({type(error).__name__}): is it running there?"
            ) from error
        try:
            body = answer.json()
            if body["status"] == "success":
                return body["data"]
            problem = f"{body['errorType']}: {body['error']}"
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"What answers at {self.url} is not a Prometheus (HTTP {answer.status_code}); check the address."
            ) from error
        raise ConfigError(f"Prometheus refused a query ({problem}): {given}.")


def _seconds(text: str) -> float:
    """A duration of Prometheus (``1m30s``) in seconds; 0 when it is none."""
    total, number = 0.0, ""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    for character in text.replace("ms", "u"):
        if character.isdigit() or character == ".":
            number += character
        elif number:
            total += float(number) * units.get(character, 0.001)
            number = ""
    return total


def _series(found: dict[str, Any]) -> Series:
    values = found.get("values") or [found["value"]]
    samples = [(float(at), float(value)) for at, value in values]
    return Series(found["metric"], tuple((at, value) for at, value in samples if not math.isnan(value)))
