"""One run in figures, as plain data: what capacity and search say of a configuration beside the rate it carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.load.summary import first_waits_ns, gaps_ns, summarise
from sarathi_plugin.search.capacity import scheduling_delay_ns
from sarathi_plugin.search.etalon import acceptance_curve, gaps_of, token_rates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.records import RequestTimeline

PERCENTILES = (50, 90, 99)


def figures_of(timelines: Sequence[RequestTimeline]) -> dict[str, Any]:
    """Fluidity, latencies in seconds, tokens per second; None where no request gave a value."""
    summary = summarise(timelines)
    first = first_waits_ns(timelines)
    gaps = [gap for t in timelines for gap in gaps_ns(t)]
    delays = [d for t in timelines if (d := scheduling_delay_ns(t)) is not None]
    return {
        "requests": summary.requests,
        "errors": summary.errors,
        "fluid_share": summary.fluid_share,
        "fluidity_index": summary.fluidity_index,
        **percentiles("ttft", first),
        **percentiles("tbt", gaps),
        **percentiles("delay", delays),
        "tokens_per_s": summary.tokens_per_s,
    }


def percentiles(name: str, values_ns: Sequence[int]) -> dict[str, float | None]:
    """P50, P90 and P99 in seconds, as ``name_p50_s`` and so on."""
    if not values_ns:
        return {f"{name}_p{q}_s": None for q in PERCENTILES}
    found = np.percentile(values_ns, PERCENTILES) / NS_PER_S
    return {f"{name}_p{q}_s": float(value) for q, value in zip(PERCENTILES, found, strict=True)}


def etalon_of(timelines: Sequence[RequestTimeline]) -> dict[str, Any]:
    """Etalon's figures of one run. A request without any token is not in them, as it is not in Etalon's."""
    gaps = gaps_of(timelines)
    rates = token_rates(gaps)
    return {
        "token_rate_by_tpot": rates.by_tpot,
        "token_rate_by_tbt": rates.by_tbt,
        "fluid_token_rate": rates.fluid,
        "acceptance_curve": acceptance_curve(gaps),
    }
