"""A load test made ready: the server, the schedule, and what requests are judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from sarathi_plugin.config import BUILTIN_CLASSES, ConfigError, SloClassSettings, load_curve, make_settings
from sarathi_plugin.load.stream import CompletionStream
from sarathi_plugin.loadtest.assignment import Assignment
from sarathi_plugin.loadtest.plan import Amount, check_fits, schedule
from sarathi_plugin.loadtest.target import describe
from sarathi_plugin.loadtest.validity import Asked
from sarathi_plugin.workload.model import ScheduledRequest
from sarathi_plugin.workload.spec import load_workload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sarathi_plugin.core import RequestTimeline
    from sarathi_plugin.deadlines import PrefillCurve
    from sarathi_plugin.loadtest.target import Served
    from sarathi_plugin.workload.trace import Trace, TraceRequest


UNLIMITED = 1 << 40
"""Tokens that no model has: for servers that do not tell their limit."""


class Wanted(NamedTuple):
    """A load test as it is asked for; None leaves it to the workload, the server, or the defaults.

    scale: multiplies prompt and output lengths. settings: the YAML file the server was started with. silence_s and
    timeout_s: longest pause, and longest request. chat: through the chat endpoint.
    """

    url: str
    workload: str = "sharegpt-like"
    amount: Amount = Amount()
    seed: int | None = None
    scale: float = 1.0
    model: str | None = None
    settings: str | None = None
    curve: str | None = None
    tbt_ms: float | None = None
    ttft_slack_ms: float | None = None
    slo_class: str | None = None
    chat: bool = False
    silence_s: float = 300.0
    timeout_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Setup:
    """See the module. exact: prompts are token ids, so their lengths are known and verified."""

    wanted: Wanted
    served: Served
    trace: Trace
    seed: int
    classes: Mapping[str, SloClassSettings]
    default_class: str
    curve: PrefillCurve

    @property
    def exact(self) -> bool:
        """Whether prompts are sent as token ids: then their lengths are asked for exactly, and verified."""
        return self.served.vllm and not self.wanted.chat

    def assignment(self, rows: list[list[object]]) -> Assignment:
        """What the worker of these rows is told."""
        return Assignment(
            url=self.served.url,
            model=self.served.model,
            vllm=self.served.vllm,
            text=not self.exact,
            chat=self.wanted.chat,
            read_timeout_s=self.wanted.silence_s,
            total_timeout_s=self.wanted.timeout_s,
            classes=dict(self.classes),
            default_class=self.default_class,
            curve=(self.curve.c0_s, self.curve.c1_s, self.curve.c2_s),
            seed=self.seed,
            name=self.trace.name,
            rows=rows,
        )

    def asked(self) -> dict[str, Asked]:
        """The lengths that are verified, by request."""
        return {
            request.request_id: Asked(
                request.prompt_tokens if self.exact else 0, request.output_tokens if self.served.vllm else 0
            )
            for request in self.trace.requests
        }

    def lost(self, request: TraceRequest, start_ns: int, now_ns: int) -> RequestTimeline:
        """The timeline of a request whose worker never reported it."""
        scheduled = ScheduledRequest(
            request_id=request.request_id,
            offset_ns=request.offset_ns,
            prompt="",
            prompt_tokens=request.prompt_tokens,
            max_tokens=request.output_tokens,
            slo_class=request.slo_class,
        )
        arrival_ns = start_ns + request.offset_ns
        end_ns = max(arrival_ns, now_ns)
        timeline = self.assignment([]).targets().timeline(
            scheduled, CompletionStream(), arrival_ns=arrival_ns, sent_ns=end_ns, end_ns=end_ns, status="error",
            error="lost: its worker never reported it",
        )  # fmt: skip
        return replace(timeline, sent_ns=None)  # nobody knows whether it was sent


def prepare(wanted: Wanted) -> Setup:
    """Check everything that can be checked before the first request. Raises ConfigError."""
    spec = load_workload(wanted.workload)
    settings = make_settings(
        wanted.settings,
        prefill_curve=wanted.curve,
        tbt_ms=wanted.tbt_ms,
        ttft_slack_ms=wanted.ttft_slack_ms,
        default_class=wanted.slo_class,
    )
    classes = BUILTIN_CLASSES | settings.classes
    if settings.default_class not in classes:
        raise ConfigError(f"No SLO class {settings.default_class!r}: use one of {', '.join(classes)}.")
    default = classes[settings.default_class].model_dump(exclude_none=True)
    given = {"tbt_ms": settings.tbt_ms, "ttft_slack_ms": settings.ttft_slack_ms}
    default |= {key: value for key, value in given.items() if value is not None}
    classes[settings.default_class] = SloClassSettings(**default)
    seed = wanted.seed if wanted.seed is not None else spec.seed
    trace = schedule(spec, wanted.amount, seed)
    if wanted.scale != 1:
        trace = trace.resized(wanted.scale, wanted.scale)
    if wanted.slo_class is not None:
        trace = trace.with_class(wanted.slo_class)
    unknown = {request.slo_class for request in trace.requests} - {"", *classes}
    if unknown:
        raise ConfigError(
            f"The workload names SLO classes that are not known here: {', '.join(sorted(unknown))}."
        )
    served = describe(wanted.url, wanted.model)
    if served.max_tokens is not None:
        check_fits(trace, served.max_tokens)
    trace.checked(served.max_tokens or UNLIMITED)
    return Setup(
        wanted, served, trace, seed, classes, settings.default_class, load_curve(settings.prefill_curve)
    )
