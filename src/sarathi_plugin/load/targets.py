"""What requests are judged by: SLO classes and the prefill curve; from a stream to a timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.deadlines import DeadlineCount, DeadlineState, count_deadlines, inter_token_times
from sarathi_plugin.load.under_way import UnderWay
from sarathi_plugin.records import RequestStatus, RequestTimeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sarathi_plugin.core import SloClass
    from sarathi_plugin.deadlines import PrefillCurve
    from sarathi_plugin.load.stream import CompletionStream
    from sarathi_plugin.workload.model import ScheduledRequest


@dataclass(frozen=True, slots=True)
class Targets:
    """The promises a run is held to: ``default`` for requests that name no class, or one not in ``classes``.

    The same curve file must serve every run that is compared; its digest is in every timeline.
    """

    default: SloClass
    curve: PrefillCurve
    classes: Mapping[str, SloClass] | None = None

    def of(self, name: str) -> SloClass:
        """The class a request is judged by."""
        return (self.classes or {}).get(name, self.default)

    def under_way(self, request: ScheduledRequest, stream: CompletionStream, arrival_ns: int) -> UnderWay:
        """A request that has just been sent, with its deadlines as far as its length is known."""
        slo = self.of(request.slo_class)
        first_ns = self.curve.prefill_ns(request.prompt_tokens) + slo.ttft_slack_ns
        return UnderWay(stream, arrival_ns, first_ns, slo.tbt_ns)

    def timeline(
        self,
        request: ScheduledRequest,
        stream: CompletionStream,
        *,
        arrival_ns: int,
        sent_ns: int,
        end_ns: int,
        status: RequestStatus,
        error: str,
        first_byte_ns: int | None = None,
    ) -> RequestTimeline:
        """The timeline of one request, its deadlines counted."""
        slo = self.of(request.slo_class)
        prompt_tokens = stream.prompt_tokens or request.prompt_tokens
        prefill_ns = self.curve.prefill_ns(prompt_tokens)
        first_ns = prefill_ns + slo.ttft_slack_ns
        count = judge(arrival_ns, stream.token_ns, end_ns, status, first_ns, slo.tbt_ns)
        return RequestTimeline(
            request_id=request.request_id,
            source="client",
            slo_class=request.slo_class or slo.name,
            arrival_ns=arrival_ns,
            sent_ns=sent_ns,
            scheduled_ns=None,
            token_ns=stream.token_ns,
            end_ns=end_ns,
            status=status,
            prompt_tokens=prompt_tokens,
            tbt_ns=slo.tbt_ns,
            ttft_slack_ns=slo.ttft_slack_ns,
            prefill_ns=prefill_ns,
            curve=self.curve.digest,
            met=count.met,
            missed=count.missed,
            error=error,
            first_byte_ns=first_byte_ns,
        )


def judge(
    arrival_ns: int,
    token_ns: Sequence[int],
    end_ns: int,
    status: RequestStatus,
    first_ns: int,
    tbt_ns: int,
) -> DeadlineCount:
    """Deadlines of one request; one that failed also misses those that passed up to its end."""
    if status == "finished":
        return count_deadlines(inter_token_times(arrival_ns, token_ns), first_ns, tbt_ns)
    state = DeadlineState.from_arrival(arrival_ns, first_ns, tbt_ns)
    for now_ns in token_ns:
        state.emit(now_ns)
    state.give_up(end_ns)
    return DeadlineCount(state.met, state.missed)
