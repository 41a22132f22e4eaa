"""Whether a run measured the server or the client: the reasons for which it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.load.dispatch import dispatch_lag_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sarathi_plugin.records import RequestTimeline

MAX_LAG_NS = 50 * NS_PER_MS
MAX_CPU = 0.85
MAX_CLOCK_NS = 50 * NS_PER_MS


@dataclass(frozen=True, slots=True)
class ClientState:
    """How one worker fared.

    cpu: its busiest five seconds, in cores (one process runs on one). clock_step_ns: how far its wall clock moved
    against its monotonic one during the run. clock_error_ns: most that its times, put on the master's clock, are wrong
    by. resent: requests it sent a second time, as the server had closed the rested connection they went out on.
    """

    cpu: float
    clock_step_ns: int = 0
    clock_error_ns: int = 0
    resent: int = 0


class Asked(NamedTuple):
    """Lengths a request was meant to have, tokens; 0 where any is right."""

    prompt_tokens: int
    output_tokens: int


def invalid_reasons(
    timelines: Sequence[RequestTimeline], clients: Sequence[ClientState], asked: Mapping[str, Asked]
) -> list[str]:
    """Why a run cannot be believed, one sentence each; none for a valid run."""
    return [*_lag(timelines), *_clients(clients), *_lengths(timelines, asked)]


def lag_limit_ns(timelines: Sequence[RequestTimeline]) -> int:
    """Most that requests may be sent late (P99): a fifth of the smallest D_d, and no more than 50 ms."""
    return min([MAX_LAG_NS, *(t.tbt_ns // 5 for t in timelines)])


def _lag(timelines: Sequence[RequestTimeline]) -> list[str]:
    lag, limit = dispatch_lag_ns(timelines), lag_limit_ns(timelines)
    if lag <= limit:
        return []
    return [
        f"The client sent late: {lag / NS_PER_MS:.1f} ms at P99, more than {limit / NS_PER_MS:g} ms "
        "(a fifth of the smallest D_d, at most 50 ms)."
    ]


def _clients(clients: Sequence[ClientState]) -> list[str]:
    reasons = []
    for number, client in enumerate(clients):
        if client.cpu > MAX_CPU:
            reasons.append(
                f"Worker {number} used {client.cpu:.0%} of a core in its busiest seconds, more than {MAX_CPU:.0%}: "
                "use more --processes."
            )
        if abs(client.clock_step_ns) > MAX_CLOCK_NS:
            reasons.append(
                f"The wall clock of worker {number} jumped by {client.clock_step_ns / NS_PER_MS:.0f} ms meanwhile."
            )
        if client.clock_error_ns > MAX_CLOCK_NS:
            reasons.append(
                f"Messages to worker {number} and back took so long that its clock is known within "
                f"{client.clock_error_ns / NS_PER_MS:.0f} ms alone."
            )
    return reasons


def _lengths(timelines: Sequence[RequestTimeline], asked: Mapping[str, Asked]) -> list[str]:
    """Wrong lengths: prompts of all that were answered, answers of all that finished."""
    nothing = Asked(0, 0)
    wrong = {"prompts": 0, "answers": 0}
    for timeline in timelines:
        want = asked.get(timeline.request_id, nothing)
        if timeline.token_ns and want.prompt_tokens not in (0, timeline.prompt_tokens):
            wrong["prompts"] += 1
        if timeline.status == "finished" and want.output_tokens not in (0, len(timeline.token_ns)):
            wrong["answers"] += 1
    return [
        f"{count} of {len(timelines)} {what} did not have the length asked for."
        for what, count in wrong.items()
        if count
    ]
