"""What came of a run: figures, faults, whether it is valid, and the exit code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sarathi_plugin import __version__
from sarathi_plugin.loadtest.faults import count_faults
from sarathi_plugin.loadtest.figures import FIGURES, by_class, figures
from sarathi_plugin.loadtest.thresholds import Threshold, parse_threshold
from sarathi_plugin.loadtest.validity import Asked, ClientState, invalid_reasons, lag_limit_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sarathi_plugin.loadtest.setup import Setup
    from sarathi_plugin.records import RequestTimeline

DEFAULT_FAIL_IF = ("errors>0",)


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run. timelines: in the order of the schedule. broken: thresholds that were crossed.

    invalid: reasons why it cannot be believed. stopped: by a person, before its end; only what was sent is in it.
    """

    setup: Setup
    timelines: tuple[RequestTimeline, ...]
    clients: tuple[ClientState, ...]
    figures: dict[str, float | None]
    broken: tuple[str, ...]
    invalid: tuple[str, ...]
    stopped: bool

    @property
    def exit_code(self) -> int:
        """0 good, 1 a threshold crossed, 3 invalid, 130 stopped."""
        if self.stopped:
            return 130
        return 3 if self.invalid else 1 if self.broken else 0

    @property
    def unsent(self) -> int:
        """Requests of the schedule that were not sent; in a closed loop there are none."""
        return max(0, len(self.setup.trace.requests) - len(self.timelines))

    @property
    def resent(self) -> int:
        """Requests that went out a second time, on a connection of their own."""
        return sum(client.resent for client in self.clients)

    @property
    def verdict(self) -> str:
        """The exit code in a word."""
        return {0: "passed", 1: "failed", 3: "invalid", 130: "stopped"}[self.exit_code]

    def as_json(self) -> dict[str, Any]:
        """The machine-readable summary."""
        setup, wanted = self.setup, self.setup.wanted
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "invalid": list(self.invalid),
            "crossed": list(self.broken),
            "figures": self.figures,
            "by_class": by_class(self.timelines),
            "faults": count_faults(self.timelines),
            "run": {
                "url": setup.served.url,
                "model": setup.served.model,
                "workload": wanted.workload,
                "rate": wanted.amount.rate,
                "duration_s": wanted.amount.duration_s,
                "loop": setup.loop,
                "scheduled": len(self.timelines) + self.unsent,
                "unsent": self.unsent,
                "resent": self.resent,
                "seed": setup.seed,
                "scale": wanted.scale,
                "endpoint": "chat" if wanted.chat else "completions",
                "prompt_lengths": setup.prompt_lengths,
                "prefill_curve": setup.curve.digest,
                "classes": {name: c.model_dump(exclude_none=True) for name, c in setup.classes.items()},
                "default_class": setup.default_class,
                "dispatch_lag_limit_s": lag_limit_ns(self.timelines) / 1e9,
                "workers": [asdict(client) for client in self.clients],
                "sarathi_plugin": __version__,
                "locust": version("locust"),
            },
        }


def parse_thresholds(texts: Sequence[str]) -> tuple[Threshold, ...]:
    """Conditions of ``--fail-if``; without any, a run with errors fails. Raises ConfigError."""
    return tuple(parse_threshold(text, FIGURES) for text in texts or DEFAULT_FAIL_IF)


def conclude(
    setup: Setup,
    timelines: dict[str, RequestTimeline],
    asked: Mapping[str, Asked],
    clients: Sequence[ClientState],
    thresholds: Sequence[Threshold],
    *,
    stopped: bool = False,
    lost_workers: int = 0,
) -> Result:
    """Sum up a run. asked: the lengths that are verified, by request."""
    ordered = tuple(timelines[r.request_id] for r in setup.trace.requests if r.request_id in timelines)
    if setup.crowd is not None:
        ordered = tuple(sorted(timelines.values(), key=lambda t: (t.arrival_ns, t.request_id)))
    numbers = figures(ordered)
    invalid = invalid_reasons(ordered, clients, asked)
    if lost_workers:
        invalid.append(f"{lost_workers} of the workers disappeared during the run.")
    if not ordered and not stopped:
        invalid.append("Nothing was sent.")
    elif len(ordered) < len(setup.trace.requests) and not stopped:
        invalid.append(
            f"{len(setup.trace.requests) - len(ordered)} requests were not sent: a worker was stopped."
        )
    broken = tuple(f"{t} (it is {_shown(numbers[t.name])})" for t in thresholds if t.fails(numbers))
    return Result(setup, ordered, tuple(clients), numbers, broken, tuple(invalid), stopped)


def _shown(value: float | None) -> str:
    return "not known" if value is None else f"{value:.6g}"
