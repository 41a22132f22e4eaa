"""Inter-token times with the deadlines they miss, integer milliseconds: what any implementation must reproduce.

The numbers are those of the reference implementation of the fluidity-index (project-etalon/etalon at d5f18de,
``etalon/metrics/metric_utils.py``), evaluated on integers; ``on_time`` is the share of tokens by the formula of its
documentation.
"""

from __future__ import annotations

from typing import NamedTuple


class Vector(NamedTuple):
    """One request: its inter-token times (TTFT first), D_p and D_d, and what follows from them."""

    name: str
    times_ms: list[int]
    first_ms: int
    tbt_ms: int
    judge_first: bool
    missed: int
    total: int
    on_time: float


VECTORS = [
    Vector("figure-of-the-docs", [200, 130, 80, 80, 220, 80, 80], 250, 80, True, 2, 8, 6 / 7),
    Vector("empty", [], 500, 250, True, 0, 0, 1),
    Vector("one-token-on-its-deadline", [500], 500, 250, True, 0, 1, 1),
    Vector("one-token-late-by-less-than-a-period", [625], 500, 250, True, 1, 1, 0),
    Vector("one-token-late-by-exactly-a-period", [750], 500, 250, True, 2, 2, 0),
    Vector("one-token-late-by-two-and-a-half-periods", [1125], 500, 250, True, 3, 3, 0),
    Vector("all-on-their-deadlines", [500, 250, 250, 250], 500, 250, True, 0, 4, 1),
    Vector("first-token-slack-absorbs-a-stall", [250, 500, 250], 500, 250, True, 0, 3, 1),
    Vector("one-ms-past-the-slack", [250, 501, 250], 500, 250, True, 1, 3, 2 / 3),
    Vector("gap-between-one-and-two-periods", [500, 375, 250], 500, 250, True, 1, 3, 2 / 3),
    Vector("gap-of-exactly-two-periods", [500, 500, 250], 500, 250, True, 2, 4, 2 / 3),
    Vector("gap-of-two-and-a-half-periods", [500, 625, 250], 500, 250, True, 2, 4, 2 / 3),
    Vector("some-slack", [375, 625, 250], 500, 250, True, 2, 4, 2 / 3),
    Vector("slack-is-lost-by-a-miss", [500, 125, 625, 250, 250], 500, 250, True, 2, 6, 0.8),
    Vector("slack-is-earned-again", [500, 625, 125, 125, 500, 250], 500, 250, True, 2, 7, 5 / 6),
    Vector("late-first-token-then-perfect", [1000, 250, 250, 250, 250], 500, 250, True, 3, 7, 0.8),
    Vector("late-first-token-not-judged", [1000, 250, 250, 250, 250], 500, 250, False, 0, 4, 1),
    Vector("first-token-not-judged-banks-nothing", [0, 500, 250], 500, 250, False, 2, 3, 0.5),
    Vector("bundles-of-three", [500, 250, 0, 0, 750, 0, 0], 500, 250, True, 0, 7, 1),
    Vector("bundles-of-four-too-slow", [500, 1000, 0, 0, 0, 1000, 0, 0, 0], 500, 250, True, 4, 12, 8 / 9),
    Vector("ten-early-then-a-long-one", [100, *[10] * 10, 150], 100, 100, True, 0, 12, 1),
    Vector("ten-on-time-then-a-long-one", [100, *[100] * 10, 150], 100, 100, True, 1, 12, 11 / 12),
    Vector("stall-early", [100, 500, *[20] * 18], 100, 50, True, 10, 29, 0.95),
    Vector("same-stall-last", [100, *[20] * 18, 500], 100, 50, True, 0, 20, 1),
    Vector("two-stalls", [80, 30, 30, 120, 30, 200, 50, 50], 100, 50, True, 4, 10, 0.75),
    Vector("ten-second-stall", [500, 250, 10_000, 250], 500, 250, True, 40, 43, 0.75),
]
