"""Two stored runs against each other."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sarathi_plugin.evaluate import compare
from sarathi_plugin.evaluate.metrics import METRICS
from sarathi_plugin.evaluate.plan import Unit
from sarathi_plugin.evaluate.store import Store
from sarathi_plugin.load.timelines import write_timelines
from sarathi_plugin.records import RequestTimeline
from tests.unit.evaluate.experiments import timeline


def run(stalled: float, seed: int, *, name: str = "r", count: int = 200) -> list[RequestTimeline]:
    """Requests of which this share stalls for a second in the middle."""
    rng = np.random.default_rng(seed)
    return [
        timeline(f"{name}{i}", 100 * i, [200, *[30] * 10, 1000 if rng.random() < stalled else 30, *[30] * 10])
        for i in range(count)
    ]


def answer(
    tmp_path: Path, a: list[RequestTimeline], b: list[RequestTimeline], metric: str = "fluid_share"
) -> str:
    write_timelines(tmp_path / "a.jsonl.gz", a)
    write_timelines(tmp_path / "b.jsonl.gz", b)
    said: list[str] = []
    compare.compare(
        tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz", tmp_path / "out", metric, say=said.append
    )
    return said[0]


def test_a_large_difference_is_shown_and_written(tmp_path: Path):
    assert answer(tmp_path, run(0.5, 1), run(0.1, 2)).startswith("b is better than a in fluid requests: +")
    html = (tmp_path / "out" / "compare.html").read_text()
    text = (tmp_path / "out" / "compare.md").read_text()
    assert html.count("<svg") == 2
    assert not re.search(r"(?:src|href)=\"(?!#)", html), "something would be loaded"
    assert "compared request by request" in text
    assert (tmp_path / "out" / "compare-pictures" / "worst.svg").is_file()


def test_equal_runs_are_no_difference(tmp_path: Path):
    assert answer(tmp_path, run(0.2, 1), run(0.2, 1)).startswith(
        "No difference shown between b and a in fluid requests: +0.0 points"
    )


def test_runs_of_other_requests_are_compared_as_wholes(tmp_path: Path):
    same = [answer(tmp_path, run(0.2, s), run(0.2, 100 + s, name="q", count=150)) for s in range(5)]
    assert sum(sentence.startswith("No difference") for sentence in same) >= 4
    assert answer(tmp_path, run(0.6, 1), run(0.1, 2, name="q", count=150)).startswith("b is better than a")


def test_runs_of_different_length_count_with_all_of_their_requests():
    """The later requests of the longer run are as much of it as the first ones, whichever of the two it is."""
    falling = [*run(0.0, 1, count=100), *(replace(t, request_id=f"l{t.request_id}", arrival_ns=t.arrival_ns + 10**11)
                                          for t in run(1.0, 2, count=300))]  # fmt: skip
    steady = run(0.4, 3, name="q", count=100)
    for ours, theirs, sign in ((falling, steady, -1), (steady, falling, 1)):
        found = compare.difference(METRICS["fluid_share"], ours, theirs, paired=False)
        assert found is not None
        assert found.value == pytest.approx(sign * 0.35, abs=0.06)
        assert found.excludes(0)
        assert found.high - found.low < 0.5


@pytest.mark.parametrize("metric", ["fluid_share", "ttft_p50"])
@pytest.mark.parametrize("paired", [True, False])
def test_one_request_of_each_shows_nothing(metric: str, paired: bool):
    fast, slow = timeline("a", 0, [100, *[30] * 10]), timeline("a", 0, [900, *[90] * 10])
    found = compare.difference(METRICS[metric], [slow], [fast], paired=paired)
    assert found is not None
    assert found.n == 1
    assert not found.excludes(1 if METRICS[metric].by_ratio else 0)


def test_the_same_ids_of_other_requests_are_no_pairs(tmp_path: Path):
    other = [replace(t, prompt_tokens=50) for t in run(0.2, 2)]
    answer(tmp_path, run(0.2, 1), other)
    assert "compared as wholes" in (tmp_path / "out" / "compare.md").read_text()


def test_tails_by_ratio(tmp_path: Path):
    sentence = answer(tmp_path, run(0.5, 1), run(0.0, 2), "tbt_p99")
    assert sentence.startswith("b is better than a in TBT P99: x0.03")


def test_a_run_that_was_refused_is_not_compared(tmp_path: Path):
    store = Store(tmp_path)
    unit = Unit("run", "chats", 2.0, 1, 0, "ours")
    with store.opened({}):
        store.write(
            unit, {"figures": {}, "validity": {"reasons": ["the client lagged"]}}, timelines=run(0.1, 1)
        )
    found = compare.read(tmp_path / "runs" / unit.name)
    with pytest.raises(compare.ConfigError, match="is an invalid run and is not compared: the client lagged"):
        compare.check(found, found)


def test_figures_of_each_metric_have_a_form():
    timelines = run(0.1, 1)
    for metric in METRICS.values():
        value = metric.of(timelines)
        assert metric.text(value)
        assert metric.name in ("capacity", "delay_p50", "delay_p90", "delay_p99") or value is not None
