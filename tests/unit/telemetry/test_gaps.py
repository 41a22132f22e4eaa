"""What the request table counts for gap mode: late gaps and usual waits, whoever shares a batch with whom."""

from __future__ import annotations

import numpy as np

from sarathi_plugin.telemetry.snapshot import Snapshot
from sarathi_plugin.telemetry.table import RequestTable
from tests.unit.telemetry.scene import FAST, NO_PREFILL, SLOW, START_NS, at


def make_table(*, count_gaps: bool = True) -> RequestTable:
    return RequestTable([FAST, SLOW], NO_PREFILL, Snapshot.private(), count_gaps=count_gaps)


def test_every_gap_counts_once_and_first_tokens_end_none():
    table = make_table()
    rows = [table.add(name, slo, START_NS, 10, 100) for name, slo in (("a", FAST), ("b", FAST), ("c", SLOW))]
    first, both, all_ = (np.array([row.slot for row in rows[:n]], np.int64) for n in (1, 2, 3))
    ones = np.ones(3, np.int64)
    one, two = ones[:1], ones[:2]
    table.emit(first, one, at(0))
    assert table.gaps.seen.tolist() == [0, 0]
    table.emit(first, one, at(60))  # late
    table.emit(both, two, at(100))  # 40 ms, and the first token of b
    assert (table.gaps.seen.tolist(), table.gaps.late.tolist()) == ([2, 0], [1, 0])
    table.emit(both, two, at(160))  # both late
    table.emit(both, two, at(200))
    assert (table.gaps.seen.tolist(), table.gaps.late.tolist()) == ([6, 0], [3, 0])
    table.emit(all_, ones, at(210))
    table.emit(all_, ones, at(310))  # late but for c
    assert (table.gaps.seen.tolist(), table.gaps.late.tolist()) == ([10, 1], [5, 0])


def test_gaps_are_counted_only_where_somebody_asks():
    assert make_table(count_gaps=False).gaps is None


def test_first_tokens_of_answers_that_ended_are_what_is_usual():
    table = make_table()
    for name, wait_ms, status in (("a", 30, "finished"), ("b", 900, "aborted")):
        row = table.add(name, FAST, START_NS, 10, 100)
        table.emit(np.array([row.slot], np.int64), np.ones(1, np.int64), at(wait_ms))
        table.remove(name, status, at(1000))
    assert table.waits.usual_ns == at(30) - START_NS
    table.add("c", FAST, START_NS, 10, 100)
    table.remove("c", "finished", at(1000))  # without any token
    assert table.waits.usual_ns == at(30) - START_NS
