"""Which configurations nobody beats, and which wins."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from sarathi_plugin.search.pareto import beats, front, ranked, value_of
from sarathi_plugin.search.search_picture import draw


def row(
    cost: float, index: float, ttft: float, *, load: float | None = 5.0, capacity=None, **more: Any
) -> dict[str, Any]:
    return {
        "load": load, "cost_per_hour": cost, "per_million_tokens": cost, "capacity": capacity, "hopeless": False,
        "passed": True, "figures": {"fluidity_index": index, "ttft_p90_s": ttft},
    } | more  # fmt: skip


def test_the_front_holds_what_nobody_beats():
    cheap, fluid, quick = row(1, 0.9, 5), row(3, 0.99, 2), row(5, 0.95, 0.1)
    beaten = [row(2, 0.9, 5), row(3, 0.98, 2), row(9, 0.99, 2.5), row(0.5, 1.0, 0.0, hopeless=True)]
    assert front([*beaten, quick, fluid, cheap]) == [cheap, fluid, quick]


def test_of_rows_alike_the_first_stays():
    one, two = row(1, 0.9, 5, name="one"), row(1, 0.9, 5, name="two")
    assert front([one, two]) == [one]


def test_a_row_without_a_first_token_has_no_good_ttft():
    assert front([row(1, 0.9, 5), row(1, 0.9, None)]) == [row(1, 0.9, 5)]


def test_beating_needs_something_better():
    assert not beats((1, 1), (1, 1))
    assert beats((1, 1), (1, 2))
    assert not beats((1, 3), (1, 2))


def test_at_a_load_the_cheapest_that_passes_wins_then_the_most_fluid():
    rows = [row(1, 0.7, 1, passed=False), row(2, 0.95, 1), row(2, 0.97, 3), row(1.5, 0.93, 9)]
    assert [r["cost_per_hour"] for r in ranked(rows)] == [1.5, 2, 2]
    assert ranked(rows)[1]["figures"]["fluidity_index"] == 0.97


def test_without_a_load_the_most_load_for_its_cost_wins():
    few, many = row(1, 0.99, 1, load=None, capacity=3.0), row(4, 0.99, 1, load=None, capacity=10.0)
    assert value_of(few) == 3
    assert value_of(many) == 2.5
    assert ranked([many, few]) == [few, many]
    assert value_of(row(1, 1, 1, load=None, hopeless=True)) == 0


def test_a_picture_of_nothing_warns_of_nothing(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(tmp_path / "none.png", [], [], None, "cost")
    assert (tmp_path / "none.png").is_file()
