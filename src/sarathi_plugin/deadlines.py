"""Pure maths of token deadlines: misses, slack, fluidity-index, fluid token rate.

Definitions: fluidity-index of Etalon (arXiv 2407.07000; the algorithm as printed in arXiv 2507.09019). Integer
nanoseconds throughout: in float seconds ``0.5 // 0.05`` is 9, one miss short.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sarathi_plugin.core import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FLUID_THRESHOLD = 0.9
"""A request is fluid when its fluidity-index is at least this (Etalon, section 5)."""


@dataclass(slots=True)
class DeadlineState:
    """Live form: O(1) state per request, one call per emission.

    next_deadline_ns: when the next token is due. tbt_ns: D_d, positive.
    """

    next_deadline_ns: int
    tbt_ns: int
    met: int = 0
    missed: int = 0

    @classmethod
    def from_arrival(cls, arrival_ns: int, first_ns: int, tbt_ns: int) -> DeadlineState:
        """State before the first token, which is due ``first_ns`` (D_p) after arrival."""
        return cls(arrival_ns + first_ns, tbt_ns)

    @classmethod
    def after_first_token(cls, token_ns: int, tbt_ns: int) -> DeadlineState:
        """State when the first token is not judged (acceptance curves): nothing counted, nothing banked."""
        return cls(token_ns + tbt_ns, tbt_ns)

    def emit(self, now_ns: int, tokens: int = 1) -> int:
        """Take ``tokens`` tokens that arrived together; returns the deadlines they missed.

        The deadline is inclusive. A late token earns no credit, costs every period it slept through, and restarts
        the schedule at its arrival; the others of its step are on time.
        """
        late = overdue_periods(now_ns, self.next_deadline_ns, self.tbt_ns)
        self.missed += late
        self.met += tokens - (1 if late else 0)
        base = now_ns if late else self.next_deadline_ns
        self.next_deadline_ns = base + tokens * self.tbt_ns
        return late

    def give_up(self, now_ns: int) -> int:
        """The request ends without its next token: count what it missed up to now."""
        late = overdue_periods(now_ns, self.next_deadline_ns, self.tbt_ns)
        self.missed += late
        return late


def overdue_periods(now_ns: int, deadline_ns: int, tbt_ns: int) -> int:
    """Deadlines that have passed by now: 0 up to and including the deadline, then one more each D_d."""
    if now_ns <= deadline_ns:
        return 0
    return (now_ns - deadline_ns) // tbt_ns + 1


class DeadlineCount(NamedTuple):
    """Deadlines of one request (or of many, added up)."""

    met: int
    missed: int

    @property
    def total(self) -> int:
        """All deadlines."""
        return self.met + self.missed

    @property
    def fluidity_index(self) -> float:
        """met / total; 1 when there was no deadline."""
        return self.met / self.total if self.total else 1.0


def count_deadlines(
    inter_token_ns: Sequence[int], first_ns: int, tbt_ns: int, *, judge_first: bool = True
) -> DeadlineCount:
    """Batch form: deadlines of one request from its inter-token times (element 0 is TTFT).

    first_ns: D_p; tbt_ns: D_d. judge_first=False leaves the first token out, and the slack it would bank.
    Source: Algorithm 1 of Etalon; equal to the live form on every input.
    """
    met = missed = slack = 0
    for i, gap in enumerate(inter_token_ns):
        if i == 0 and not judge_first:
            continue
        allowed = first_ns if i == 0 else tbt_ns
        if gap <= allowed + slack:
            met += 1
            slack += allowed - gap
        else:
            missed += (gap - slack - allowed) // tbt_ns + 1
            slack = 0
    return DeadlineCount(met, missed)


def token_fraction(
    inter_token_ns: Sequence[int], first_ns: int, tbt_ns: int, *, judge_first: bool = True
) -> float:
    """Share of *tokens* on time: a stall of any length costs one.

    Not the fluidity-index; for comparison with tools that count tokens. 1 when no token is judged.
    """
    judged = on_time = slack = 0
    for i, gap in enumerate(inter_token_ns):
        if i == 0 and not judge_first:
            continue
        allowed = first_ns if i == 0 else tbt_ns
        judged += 1
        if gap <= allowed + slack:
            on_time += 1
            slack += allowed - gap
        else:
            slack = 0
    return on_time / judged if judged else 1.0


def inter_token_times(arrival_ns: int, token_ns: Sequence[int]) -> list[int]:
    """Absolute token times as [TTFT, gap, gap, ...]."""
    return [b - a for a, b in zip([arrival_ns, *token_ns], token_ns, strict=False)]


def smallest_fluid_tbt_ns(
    gaps_ns: Sequence[int], *, threshold: float = FLUID_THRESHOLD, resolution_ns: int = 100_000
) -> int | None:
    """Smallest D_d at which one request, first token not judged, reaches the threshold.

    gaps_ns: time between tokens, without TTFT. Found by bisection to ``resolution_ns`` (the share of misses falls
    as D_d grows). None without gaps.
    """
    if not gaps_ns:
        return None
    times = [0, *gaps_ns]

    def fluid(tbt_ns: int) -> bool:
        count = count_deadlines(times, 0, tbt_ns, judge_first=False)
        return count.fluidity_index >= threshold

    low, high = 0, max(1, *gaps_ns)
    while high - low > resolution_ns:
        mid = (low + high) // 2
        if fluid(mid):
            high = mid
        else:
            low = mid
    return high


def fluid_token_rate(
    requests: Iterable[Sequence[int]], *, share: float = 0.99, threshold: float = FLUID_THRESHOLD
) -> float | None:
    """Tokens per second that ``share`` of the requests can be promised: 1 / (smallest D_d that suits them).

    requests: the gaps of each request in nanoseconds. None when no request has a gap. Etalon, section 4.
    """
    needed = sorted(
        tbt for gaps in requests if (tbt := smallest_fluid_tbt_ns(gaps, threshold=threshold)) is not None
    )
    if not needed:
        return None
    return NS_PER_S / needed[max(0, math.ceil(share * len(needed)) - 1)]


@dataclass(frozen=True, slots=True)
class PrefillCurve:
    """D_p without slack: c0 + c1 n + c2 n^2 seconds for a prompt of n tokens, cached or not.

    Frozen: measured once on an idle stock engine, or shipped; never the online model, which could raise its own
    score by predicting too much. ``digest`` goes into every timeline; runs with different digests are not
    compared. Raises ValueError on a negative coefficient.
    """

    c0_s: float
    c1_s: float
    c2_s: float
    source: str = ""

    def __post_init__(self) -> None:
        if min(self.c0_s, self.c1_s, self.c2_s) < 0:
            raise ValueError(
                "A prefill curve needs coefficients c0, c1, c2 of zero or more; measure it again."
            )

    def prefill_ns(self, prompt_tokens: int) -> int:
        """Time allowed for a prompt of so many tokens, before slack."""
        seconds = self.c0_s + (self.c1_s + self.c2_s * prompt_tokens) * prompt_tokens
        return round(seconds * NS_PER_S)

    @property
    def digest(self) -> str:
        """Twelve hex digits that name these coefficients."""
        text = json.dumps([self.c0_s, self.c1_s, self.c2_s])
        return hashlib.sha256(text.encode()).hexdigest()[:12]
