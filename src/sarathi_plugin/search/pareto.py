"""Which configurations nobody beats: cost against fluidity and TTFT; and which of them wins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = dict[str, Any]


def value_of(row: Row) -> float:
    """Load per unit of cost: requests per second for one of the price's currency an hour, or for one device."""
    if row["hopeless"] or not row["capacity"]:
        return 0.0
    return float(row["capacity"] / row["cost_per_hour"])


def cost_of(row: Row) -> float:
    """What is compared: the cost of a million tokens at the capacity, or of an hour at the load asked for."""
    return float(row["per_million_tokens"] if row["load"] is None else row["cost_per_hour"])


def point_of(row: Row) -> tuple[float, float, float]:
    """(cost, 1 - fluidity-index, TTFT P90 in seconds): less is better in each."""
    figures = row["figures"]
    first = figures["ttft_p90_s"]
    return cost_of(row), 1 - figures["fluidity_index"], float("inf") if first is None else first


def front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other is at least as good as in everything and better in something; cheapest first.

    Of rows alike in all three the first stays.
    """
    able = [row for row in rows if not row["hopeless"]]
    points = [point_of(row) for row in able]
    kept = [
        row
        for i, row in enumerate(able)
        if not any(
            beats(other, points[i]) or (j < i and other == points[i]) for j, other in enumerate(points)
        )
    ]
    return sorted(kept, key=point_of)


def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether ``a`` is nowhere worse than ``b`` and somewhere better."""
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Those that pass, best first: most load for its cost, or at a given load the cheapest, then the most fluid."""
    able = [row for row in rows if row["passed"]]
    return sorted(
        able, key=lambda row: (-value_of(row), point_of(row)) if row["load"] is None else (0, point_of(row))
    )


def label_of(config: dict[str, Any]) -> str:
    """A configuration in a line; what is at null is left out."""
    return " ".join(
        f"{key.removeprefix('sarathi.')}={value}" for key, value in config.items() if value is not None
    )
