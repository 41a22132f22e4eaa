"""Which gaps were late, and how long a step may take on that account."""

from __future__ import annotations

import numpy as np

from sarathi_plugin.core import NS_PER_MS, SloClass
from sarathi_plugin.gapcount import MEMORY, GapCount

FAST = SloClass("fast", 50 * NS_PER_MS, 0)
SLOW = SloClass("slow", 200 * NS_PER_MS, 0)
ZEROS, ONES = np.zeros(100, np.int64), np.ones(100, np.int64)
CAP = 1000.0 * NS_PER_MS


def limit_ms(gaps: GapCount, *tbt_ms: int, share: float = 0.01, alone_ms: float = 10) -> float:
    decodes = np.array(tbt_ms, np.int64) * NS_PER_MS
    return gaps.limit_ns(decodes, share, CAP, alone_ms * NS_PER_MS) / NS_PER_MS


def test_before_any_gap_was_seen_none_may_be_late():
    assert limit_ms(GapCount([FAST, SLOW]), 50, 200) == 50
    assert limit_ms(GapCount([FAST, SLOW]), 200) == 200


def test_a_class_gives_away_its_share_and_no_more():
    gaps = GapCount([FAST, SLOW])
    gaps.note(ZEROS, 10 * NS_PER_MS)
    assert limit_ms(gaps, 50) == 1000
    assert limit_ms(gaps, 50, 50) == 50  # two of a hundred
    gaps.note(ZEROS, np.full(100, 50 * NS_PER_MS))  # just in time
    assert limit_ms(gaps, 50, 50) == 1000
    gaps.note(ZEROS[:1], 51 * NS_PER_MS)
    assert limit_ms(gaps, 50, 50) == 50
    assert limit_ms(gaps, 50, share=0) == 50


def test_every_class_counts_for_itself():
    gaps = GapCount([FAST, SLOW])
    gaps.note(np.concatenate([ZEROS, ONES]), 100 * NS_PER_MS)
    assert gaps.late.tolist() == [100, 0]
    assert limit_ms(gaps, 50, 200) == 50
    assert limit_ms(gaps, 200) == 1000


def test_what_was_long_ago_weighs_half():
    gaps = GapCount([FAST])
    for _ in range(MEMORY // 100 + 1):
        gaps.note(ZEROS, 60 * NS_PER_MS)
    assert gaps.late[0] < 0.51 * MEMORY
    assert gaps.late[0] == gaps.seen[0]


def test_a_class_that_has_lost_its_target_and_cannot_get_it_back_limits_nothing():
    gaps = GapCount([FAST, SLOW])
    gaps.note(np.tile(ZEROS, 9), 10 * NS_PER_MS)
    gaps.note(np.tile(ZEROS, 2), 60 * NS_PER_MS)
    assert limit_ms(gaps, 50, alone_ms=60) == 50  # 200 late of 1,100 are less than a tenth and a hundred more
    gaps.note(np.tile(ZEROS, 1), 60 * NS_PER_MS)
    assert limit_ms(gaps, 50, alone_ms=60) == 1000
    assert limit_ms(gaps, 50, alone_ms=50) == 50  # the decodes alone keep to it again: so does the step
    assert limit_ms(gaps, 50, 200, alone_ms=60) == 200  # the other class still has its target
