"""Claims from runs: paired by traffic, averaged within a seed, invalid runs used nowhere."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sarathi_plugin.evaluate.metrics import METRICS
from sarathi_plugin.evaluate.plan import Unit
from sarathi_plugin.evaluate.store import StoredRun
from tests.unit.evaluate.experiments import results, run, timeline

SHARE, TTFT = METRICS["fluid_share"], METRICS["ttft_p99"]


def test_an_arm_that_lets_requests_time_out_is_not_the_quicker_one_for_it():
    """Such a run is valid, and the latencies of those that were served are not all there is."""
    served = [timeline(f"a{i}", 100 * i, [100, 30, 30]) for i in range(60)]
    late = {"status": "timeout", "end_ns": 600 * 10**9}
    hung = [replace(t, arrival_ns=0, token_ns=(10**8,), **late) for t in served[:10]]
    silent = [replace(t, token_ns=()) for t in hung]
    assert METRICS["ttft_p90"].of(served) == pytest.approx(100)
    assert METRICS["ttft_p90"].of([*served[10:], *silent]) == pytest.approx(600_000)
    assert METRICS["longest_freeze"].of([*served[10:], *hung]) == pytest.approx(599_900)
    assert METRICS["delay_p50"].of(silent) is None  # a client does not know of it
    never = [replace(t, source="simulator", scheduled_ns=None) for t in silent]
    assert METRICS["delay_p50"].of(never) == pytest.approx(600_000)


def test_pairs_are_of_the_same_traffic():
    """Seeds differ far more than arms: only pairing shows the difference."""
    found = results(
        [run("stock", seed, base) for seed, base in ((1, 0.2), (2, 0.5), (3, 0.8))]
        + [run("ours", seed, base + 0.1) for seed, base in ((1, 0.2), (2, 0.5), (3, 0.8))]
    ).claim(SHARE, "ours", "stock")
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(0.1)
    assert found.estimate.n == 3
    assert found.over == "seeds"
    assert found.shown
    assert found.better
    assert found.sentence("here").startswith(
        "ours is better than stock in fluid requests here: +10.0 points (95 % interval "
    )


def test_repeats_of_one_seed_are_one_value():
    """Twenty repeats of two seeds are two values, not forty."""
    runs = [
        run(arm, seed, 0.5 + (arm == "ours") * 0.05 * seed, repeat=r)
        for arm in ("stock", "ours")
        for seed in (1, 2)
        for r in range(20)
    ]
    claim = results(runs).claim(SHARE, "ours", "stock")
    assert claim.estimate is not None
    assert claim.estimate.n == 2
    assert not claim.shown


def test_with_one_seed_the_interval_is_over_repeats():
    runs = [run(arm, 1, 0.5 + (arm == "ours") * 0.1, repeat=r) for arm in ("stock", "ours") for r in range(4)]
    claim = results(runs).claim(SHARE, "ours", "stock")
    assert claim.over == "repeats"
    assert claim.estimate is not None
    assert claim.estimate.n == 4


def test_an_invalid_run_takes_its_pair_with_it():
    runs = [run("stock", s, 0.5) for s in (1, 2, 3)] + [run("ours", s, 0.6) for s in (1, 2)]
    runs.append(run("ours", 3, 0.0, reasons=("the client lagged",)))
    found = results(runs)
    claim = found.claim(SHARE, "ours", "stock")
    assert claim.estimate is not None
    assert claim.estimate.n == 2
    assert claim.estimate.value == pytest.approx(0.1)
    assert len(found.invalid) == 1
    assert found.of("ours", ("chats", 2.0)) == runs[3:5]


def test_without_a_valid_pair_there_is_no_answer():
    runs = [run("stock", 1, 0.5), run("ours", 1, 0.9, reasons=("errors",))]
    claim = results(runs).claim(SHARE, "ours", "stock")
    assert not claim.shown
    assert claim.sentence() == "No answer: there is no valid pair of runs of ours and stock."


def test_an_interval_that_holds_nothing_is_no_difference_shown():
    runs = [run("stock", s, 0.5) for s in (1, 2, 3)] + [
        run("ours", s, v) for s, v in ((1, 0.6), (2, 0.4), (3, 0.55))
    ]
    claim = results(runs).claim(SHARE, "ours", "stock")
    assert claim.sentence().startswith(
        "No difference shown between ours and stock in fluid requests: +1.7 points"
    )


def test_times_are_compared_by_ratio_and_less_is_better():
    runs = [run("stock", s, 0.5) for s in (1, 2, 3)] + [run("ours", s, 0.8) for s in (1, 2, 3)]
    claim = results(runs).claim(TTFT, "ours", "stock")
    assert claim.estimate is not None
    assert claim.estimate.value == pytest.approx(0.5)
    assert claim.shown
    assert claim.better
    assert "x0.5" in claim.amount()


def test_one_request_is_not_a_difference():
    runs = [run("stock", s, 0.50) for s in (1, 2, 3)] + [run("ours", s, 0.51) for s in (1, 2, 3)]
    assert not results(runs, requests=100).claim(SHARE, "ours", "stock").shown
    assert results(runs, requests=200).claim(SHARE, "ours", "stock").shown


def capacity_run(arm: str, seed: int, rate: float) -> StoredRun:
    return StoredRun(
        Unit("capacity", "chats", 0.0, seed, 0, arm),
        {"capacity": {"rate": rate, "limit": "x"}},
        run("a", 1, 0).folder,
    )


def test_capacities_come_from_searches_and_loads_from_runs():
    runs = [
        capacity_run(arm, s, rate * (1 + s / 10))
        for arm, rate in (("stock", 2.0), ("ours", 2.6))
        for s in (1, 2, 3)
    ]
    found = results([*runs, run("stock", 1, 0.5)], resolution=0.02)
    assert found.cells() == [("chats", 2.0)]
    assert found.cells(METRICS["capacity"]) == [("chats", 0.0)]
    claim = found.claim(METRICS["capacity"], "ours", "stock")
    assert claim.estimate is not None
    assert claim.estimate.value == pytest.approx(1.3)
    assert claim.estimate.high / claim.estimate.value == pytest.approx(1.02)
    assert claim.shown


def test_a_capacity_of_nothing_is_not_infinitely_worse():
    runs = [capacity_run("stock", s, 2.0) for s in (1, 2)] + [capacity_run("ours", s, 0.0) for s in (1, 2)]
    claim = results(runs).claim(METRICS["capacity"], "ours", "stock")
    assert claim.estimate is not None
    assert math.isfinite(claim.estimate.value)
    assert not claim.better
