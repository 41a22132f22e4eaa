"""How many replicas a load needs: the fewest that pass, by doubling and bisection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.search.capacity import Verdict


def find_replicas(judge: Callable[[int], Verdict], *, most: int, start: int = 1) -> tuple[int | None, str]:
    """(fewest replicas that pass, what broke with one fewer), or (None, what broke with ``most`` of them).

    judge(n): one run with n replicas. The reason is empty when one replica is enough. A judge that is not monotone
    gives one of its boundaries. Raises ConfigError unless 1 <= start <= most.
    """
    if not 1 <= start <= most:
        raise ConfigError(f"A search for replicas needs 1 <= start <= most, not {start} and {most}.")
    reasons: dict[int, str] = {0: ""}

    def passes(replicas: int) -> bool:
        verdict = judge(replicas)
        reasons[replicas] = verdict.reason
        return verdict.passed

    low, high = 0, start
    while not passes(high):
        if high == most:
            return None, reasons[high]
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if passes(middle):
            high = middle
        else:
            low = middle
    return high, reasons[low]
