"""A load test made ready: the server, the schedule, and what requests are judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from sarathi_plugin.config import BUILTIN_CLASSES, ConfigError, SloClassSettings, load_curve, make_settings
from sarathi_plugin.load.stream import CompletionStream
from sarathi_plugin.loadtest.assignment import Assignment
from sarathi_plugin.loadtest.counting import word_costs
from sarathi_plugin.loadtest.person import Crowd
from sarathi_plugin.loadtest.plan import DEFAULT_DURATION_S, Amount, check_fits, schedule
from sarathi_plugin.loadtest.target import describe
from sarathi_plugin.workload.model import ScheduledRequest
from sarathi_plugin.workload.spec import load_workload
from sarathi_plugin.workload.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sarathi_plugin.config import Settings
    from sarathi_plugin.deadlines import PrefillCurve
    from sarathi_plugin.loadtest.target import Served
    from sarathi_plugin.loadtest.words import Costs
    from sarathi_plugin.records import RequestTimeline
    from sarathi_plugin.workload.spec import WorkloadSpec
    from sarathi_plugin.workload.trace import TraceRequest


UNLIMITED = 1 << 40
"""Tokens that no model has: for servers that do not tell their limit."""
A_DAY_S = 86_400.0
MOST = 1e6
"""Requests a second, and times as long: more than any server or model has a use for."""


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
    """See the module. trace: the schedule of an open loop; crowd: the users of a closed one. costs: see ``Costs``."""

    wanted: Wanted
    served: Served
    trace: Trace
    seed: int
    classes: Mapping[str, SloClassSettings]
    default_class: str
    curve: PrefillCurve
    crowd: Crowd | None = None
    costs: Costs | None = None

    @property
    def words(self) -> bool:
        """Whether prompts are words rather than token ids."""
        return self.wanted.chat or not self.served.vllm

    @property
    def prompt_lengths(self) -> str:
        """Where the lengths of prompts come from, for a person."""
        if not self.words:
            return "token ids, verified by usage"
        if self.costs is not None and self.crowd is None:
            return "words counted by /tokenize, verified by usage"
        return "words, lengths from usage"

    @property
    def loop(self) -> str:
        """Open or closed loop, for a person."""
        if self.crowd is None:
            return "open"
        return f"closed, {self.crowd.users} users, {self.crowd.think_s:g} s to think"

    @property
    def people(self) -> list[int]:
        """The users of a closed loop by number; none in an open one."""
        return list(range(self.crowd.users)) if self.crowd is not None else []

    def assignment(self, rows: list[list[object]], people: list[int]) -> Assignment:
        """What the worker of these rows, or of these users, is told."""
        return Assignment(
            url=self.served.url,
            model=self.served.model,
            vllm=self.served.vllm,
            text=self.words,
            chat=self.wanted.chat,
            costs=self.costs,
            read_timeout_s=self.wanted.silence_s,
            total_timeout_s=self.wanted.timeout_s,
            classes=dict(self.classes),
            default_class=self.default_class,
            curve=(self.curve.c0_s, self.curve.c1_s, self.curve.c2_s),
            seed=self.seed,
            name=self.trace.name,
            rows=rows,
            crowd=self.crowd,
            people=people,
        )

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
        timeline = self.assignment([], []).targets().timeline(
            scheduled, CompletionStream(), arrival_ns=arrival_ns, sent_ns=end_ns, end_ns=end_ns, status="error",
            error="lost: its worker never reported it",
        )  # fmt: skip
        return replace(timeline, sent_ns=None)  # nobody knows whether it was sent


def prepare(wanted: Wanted) -> Setup:
    """Check everything that can be checked before the first request. Raises ConfigError."""
    _check_numbers(wanted)
    spec = load_workload(wanted.workload)
    settings = make_settings(
        wanted.settings,
        prefill_curve=wanted.curve,
        tbt_ms=wanted.tbt_ms,
        ttft_slack_ms=wanted.ttft_slack_ms,
        default_class=wanted.slo_class,
    )
    classes = _classes(settings)
    seed = wanted.seed if wanted.seed is not None else spec.seed
    closed = wanted.amount.users is not None
    trace = _trace(wanted, spec, seed, classes) if not closed else Trace(spec.kind or wanted.workload, ())
    served = describe(wanted.url, wanted.model)
    if served.max_tokens is not None:
        check_fits(trace, served.max_tokens)
    trace.checked(served.max_tokens or UNLIMITED)
    crowd = _crowd(wanted, spec, seed, served) if closed else None
    words = wanted.chat or not served.vllm
    costs = word_costs(served, chat=wanted.chat) if words and not closed else None
    curve = load_curve(settings.prefill_curve)
    return Setup(wanted, served, trace, seed, classes, settings.default_class, curve, crowd, costs)


def _check_numbers(wanted: Wanted) -> None:
    """Raise ConfigError for numbers that are none of their kind."""
    amount = wanted.amount
    numbers = {
        "--rate": (amount.rate, MOST), "--scale": (wanted.scale, MOST),
        "--silence": (wanted.silence_s, A_DAY_S), "--timeout": (wanted.timeout_s, A_DAY_S),
    }  # fmt: skip
    for flag, (value, most) in numbers.items():
        if value is not None and not 0 < value <= most:
            raise ConfigError(f"{flag} takes a number above zero and up to {most:.0f}, not {value:g}.")
    if not 0 <= amount.think_s <= A_DAY_S:
        raise ConfigError(f"--think takes a number of seconds up to {A_DAY_S:.0f}, not {amount.think_s:g}.")


def _classes(settings: Settings) -> dict[str, SloClassSettings]:
    """The SLO classes by name, the default one with the times that were given for it."""
    classes = BUILTIN_CLASSES | settings.classes
    if settings.default_class not in classes:
        raise ConfigError(f"No SLO class {settings.default_class!r}: use one of {', '.join(classes)}.")
    default = classes[settings.default_class].model_dump(exclude_none=True)
    given = {"tbt_ms": settings.tbt_ms, "ttft_slack_ms": settings.ttft_slack_ms}
    default |= {key: value for key, value in given.items() if value is not None}
    classes[settings.default_class] = SloClassSettings(**default)
    return classes


def _trace(wanted: Wanted, spec: WorkloadSpec, seed: int, classes: Mapping[str, SloClassSettings]) -> Trace:
    """The schedule of an open loop."""
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
    return trace


def _crowd(wanted: Wanted, spec: WorkloadSpec, seed: int, served: Served) -> Crowd:
    """The users of a closed loop."""
    amount = wanted.amount
    if amount.users is None or amount.requests is not None or amount.rate is not None:
        raise ConfigError(
            "--users makes a closed loop, whose rate is up to the answers: give --duration alone."
        )
    if spec.kind is None:
        raise ConfigError("--users needs a kind of traffic with sessions, not a trace.")
    crowd = Crowd(
        kind=spec.kind,
        users=amount.users,
        think_s=amount.think_s,
        duration_s=amount.duration_s or DEFAULT_DURATION_S,
        seed=seed,
        prompt_scale=spec.prompt_scale * wanted.scale,
        output_scale=spec.output_scale * wanted.scale,
        slo_class=wanted.slo_class or spec.slo_class or "",
        max_tokens=served.max_tokens,
    )
    crowd.sessions()
    return crowd
