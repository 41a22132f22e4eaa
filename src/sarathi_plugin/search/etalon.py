"""Etalon's service-level figures (arXiv 2407.07000): token rates by three measures, and the acceptance curve.

They speak of decoding alone: the first token is not judged. Quantiles over requests are linear between neighbours, as
Etalon takes them; ``deadlines.fluid_token_rate`` instead promises to whole requests, which is stricter where they are
few. Integer nanoseconds: where float seconds lose a miss, figures differ from Etalon's in the last digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.deadlines import count_deadlines, smallest_fluid_tbt_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sarathi_plugin.records import RequestTimeline

QUANTILE = 0.99
CURVE_MS = (10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300)
"""D_d of an acceptance curve, milliseconds; Etalon's own goes from 1 to 100 in steps of one."""


class TokenRates(NamedTuple):
    """Tokens per second that a stream is promised, by three measures; None without a stream of two tokens.

    by_tpot: 1 / mean over requests of the mean time between tokens. by_tbt: 1 / P99 of all times between tokens.
    fluid: 1 / P99 over requests of the smallest D_d at which a request is fluid (the fluid token generation rate).
    """

    by_tpot: float | None
    by_tbt: float | None
    fluid: float | None


def gaps_of(timelines: Iterable[RequestTimeline]) -> list[list[int]]:
    """Times between tokens of every request that got a token."""
    return [timeline.gaps_ns for timeline in timelines if timeline.token_ns]


def token_rates(requests: Sequence[Sequence[int]]) -> TokenRates:
    """The three rates. requests: the times between the tokens of each, nanoseconds, TTFT left out."""
    streams = [gaps for gaps in requests if len(gaps)]
    if not streams:
        return TokenRates(None, None, None)
    mean = float(np.mean([np.mean(gaps) for gaps in streams]))
    tail = float(np.quantile(np.concatenate([np.asarray(gaps) for gaps in streams]), QUANTILE))
    needed = float(np.quantile([smallest_fluid_tbt_ns(gaps) or 0 for gaps in streams], QUANTILE))
    return TokenRates(*(NS_PER_S / value if value > 0 else None for value in (mean, tail, needed)))


def acceptance_curve(
    requests: Sequence[Sequence[int]], targets_ms: Sequence[float] = CURVE_MS
) -> list[tuple[float, float]]:
    """(D_d in ms, fluidity-index that 99 % of the requests reach at it); requests as for ``token_rates``.

    The second is 1 - P99 over requests of the share of missed deadlines. Empty without requests.
    """
    if not requests:
        return []
    longest = [max(gaps, default=0) for gaps in requests]
    curve = []
    for target in targets_ms:
        tbt_ns = round(target * NS_PER_MS)
        missed = [
            0.0 if most <= tbt_ns else _missed_share(gaps, tbt_ns)
            for gaps, most in zip(requests, longest, strict=True)
        ]
        curve.append((float(target), 1 - float(np.quantile(missed, QUANTILE))))
    return curve


def _missed_share(gaps: Sequence[int], tbt_ns: int) -> float:
    return 1 - count_deadlines([0, *gaps], 0, tbt_ns, judge_first=False).fluidity_index
