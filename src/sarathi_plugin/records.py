"""What is recorded of steps and requests: one schema for server, load client, simulator and evaluation.

Times are integer nanoseconds on one monotonic clock. Nothing here imports vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sarathi_plugin.core import StepShape


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One finished step: what was planned, what ran, how long it took.

    start_ns: when the engine began on it (the later of its schedule call and the end of the step before).
    policy_ns: time our own code took in its schedule call. fallback: the policy failed and stock decisions ran.
    """

    step: int
    schedule_ns: int
    start_ns: int
    end_ns: int
    shape: StepShape
    chunks: int
    predicted_ns: int
    available_ns: int | None
    budget: int
    limit: str
    running: int
    waiting: int
    free_blocks: int
    preemptions: int
    relegations: int
    policy_ns: int
    fallback: bool

    @property
    def duration_ns(self) -> int:
        """Time the engine spent on this step."""
        return self.end_ns - self.start_ns


RequestStatus = Literal["finished", "aborted", "error", "timeout"]


@dataclass(frozen=True, slots=True)
class RequestTimeline:
    """One served request as its user met it: the schema of server, load client and simulator alike.

    arrival_ns: the intended start (open loop). sent_ns: when the client really sent it, None at the server.
    scheduled_ns: when its first chunk was scheduled, None at the client. token_ns: arrival of every token; tokens of
    one step share it. prefill_ns: D_p without slack, from the curve ``curve``. met, missed: deadlines of this
    request, as ``deadlines.count_deadlines`` counts them. first_byte_ns: when the server began to answer (its HTTP
    headers, no token yet), None but at the client.
    """

    request_id: str
    source: Literal["server", "client", "simulator"]
    slo_class: str
    arrival_ns: int
    sent_ns: int | None
    scheduled_ns: int | None
    token_ns: tuple[int, ...]
    end_ns: int
    status: RequestStatus
    prompt_tokens: int
    tbt_ns: int
    ttft_slack_ns: int
    prefill_ns: int
    curve: str
    met: int
    missed: int
    error: str = ""
    first_byte_ns: int | None = None

    @property
    def ttft_ns(self) -> int | None:
        """Arrival to first token, None without one."""
        return self.token_ns[0] - self.arrival_ns if self.token_ns else None

    @property
    def gaps_ns(self) -> list[int]:
        """Time between tokens, one per further token (zeros inside a multi-token step)."""
        return [b - a for a, b in zip(self.token_ns, self.token_ns[1:], strict=False)]

    @property
    def given_up_ns(self) -> int | None:
        """What a request that timed out had waited for its next token by then, None of all others.

        Its wait was no shorter: without it, latencies would be those of the requests that were served.
        """
        if self.status != "timeout":
            return None
        return self.end_ns - (self.token_ns[-1] if self.token_ns else self.arrival_ns)

    @property
    def fluidity_index(self) -> float:
        """Share of deadlines met; a failed request that met none is 0."""
        total = self.met + self.missed
        if total == 0:
            return 1.0 if self.status == "finished" else 0.0
        return self.met / total
