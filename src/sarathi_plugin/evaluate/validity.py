"""Whether one run may be used at all, and if not, why. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.load.dispatch import dispatch_lag_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sarathi_plugin.records import RequestTimeline

LAG_SHARE, LAG_LIMIT_MS = 0.2, 50.0
"""A client whose slowest hundredth is later than this share of D_d, or than so many ms, measures itself."""

CPU_LIMIT = 0.85
"""Share of one core beyond which a client may time tokens late."""


@dataclass(frozen=True, slots=True)
class Validity:
    """What was checked of one run. reasons: why it must not be used, empty when nothing is known against it."""

    lag_p99_ms: float
    lag_limit_ms: float
    client_cpu: float | None
    errors: int
    wrong_prompts: int
    wrong_outputs: int
    reasons: tuple[str, ...]


def check(
    timelines: Sequence[RequestTimeline],
    wanted: Mapping[str, tuple[int, int]],
    *,
    client_cpu: float | None = None,
) -> Validity:
    """Judge a run. wanted: (prompt, output) tokens by request id. client_cpu: share of one core the client used.

    A request that timed out is the arm's doing: it counts as not fluid and does not make the run invalid.
    """
    lag = dispatch_lag_ns(timelines) / NS_PER_MS
    tbt_ms = min((t.tbt_ns for t in timelines), default=0) / NS_PER_MS
    limit = min(LAG_SHARE * tbt_ms, LAG_LIMIT_MS)
    finished = [t for t in timelines if t.status == "finished"]
    broken = [t for t in timelines if t.status in ("error", "aborted")]
    prompts = sum(t.prompt_tokens != wanted[t.request_id][0] for t in finished)
    outputs = sum(len(t.token_ns) != wanted[t.request_id][1] for t in finished)
    reasons = []
    if lag > limit:
        reasons.append(f"the client sent up to {lag:.0f} ms late (P99; limit {limit:.0f} ms)")
    if client_cpu is not None and client_cpu > CPU_LIMIT:
        reasons.append(f"the client used {client_cpu:.0%} of a core (limit {CPU_LIMIT:.0%})")
    if broken:
        kinds = sorted({t.error.partition(":")[0] or t.status for t in broken})
        reasons.append(f"{len(broken)} of {len(timelines)} requests failed ({', '.join(kinds)[:120]})")
    if prompts:
        reasons.append(f"{prompts} prompts had another length than asked")
    if outputs:
        reasons.append(f"{outputs} answers had another length than asked")
    if len(timelines) != len(wanted):
        reasons.append(f"{len(wanted) - len(timelines)} requests left no trace")
    return Validity(lag, limit, client_cpu, len(broken), prompts, outputs, tuple(reasons))
