"""The columns of the engine against one plain state per request, on anything that can happen to requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sarathi_plugin.core import SloClass
from sarathi_plugin.deadlines import DeadlineState, PrefillCurve, count_deadlines, inter_token_times
from sarathi_plugin.telemetry.snapshot import FREE, Snapshot
from sarathi_plugin.telemetry.table import RequestTable
from sarathi_plugin.telemetry.targets import TargetTable

if TYPE_CHECKING:
    from sarathi_plugin.records import RequestStatus
    from sarathi_plugin.telemetry.emission import Emission
    from sarathi_plugin.telemetry.table import Outcome

CLASSES = (SloClass("a", 10, 30), SloClass("b", 25, 5))
CURVE = PrefillCurve(1e-9, 2e-9, 0)  # 1 + 2 n ns
TARGETS = (3, 10, 40)

SNAPSHOT = Snapshot.private()


@dataclass
class Live:
    """One request as a person would keep it."""

    slo: SloClass
    arrival: int
    state: DeadlineState
    tokens: list[int] = field(default_factory=list)


ADD = st.tuples(st.just("add"), st.integers(0, 1), st.integers(0, 9))
"""A class and a prompt length."""
STEP = st.tuples(st.just("step"), st.integers(0, 2**6 - 1), st.sampled_from([1, 1, 1, 2, 5]))
"""Which of the live requests yield tokens, and how many each."""
REPEAT = st.tuples(st.just("repeat"), st.integers(1, 4), st.just(0))
"""The same requests again, so many times: the batch of a steady engine."""
LEAVE = st.tuples(st.just("leave"), st.integers(0, 9), st.sampled_from(["finished", "aborted", "error"]))
WAITS = st.integers(0, 30) | st.sampled_from(
    [3, 4, 10, 11, 25, 26, 40, 41]
)  # often just on a deadline, or just past
OPERATIONS = st.lists(st.tuples(WAITS, ADD | STEP | STEP | REPEAT | LEAVE), max_size=40)


class Engine:
    """Does the same to the table and to plain states, and compares them."""

    def __init__(self, *, lazily: bool) -> None:
        SNAPSHOT.slo_index[:64] = FREE
        self.table = RequestTable(CLASSES, CURVE, SNAPSHOT, keep_tokens=True)
        self.targets = TargetTable(TARGETS)
        self.live: dict[str, Live] = {}
        self.now = 1000
        self.made = 0
        self.batch: tuple[list[str], np.ndarray, np.ndarray] | None = None
        self.lazily = lazily
        self.pending: list[tuple[Emission, dict[str, list[int]]] | tuple[Outcome, Live]] = []

    def add(self, slo_index: int, prompt_tokens: int) -> None:
        slo = CLASSES[slo_index]
        name = f"r{self.made}"
        self.made += 1
        row = self.table.add(name, slo, self.now, prompt_tokens, 9)
        first = 1 + 2 * prompt_tokens + slo.ttft_slack_ns
        assert row.prefill_deadline_ns == self.now + first
        self.live[name] = Live(slo, self.now, DeadlineState.from_arrival(self.now, first, slo.tbt_ns))

    def step(self, mask: int, count: int) -> None:
        names = [name for i, name in enumerate(self.live) if mask >> (i % 6) & 1]
        if not names:
            return
        slots = np.array([self.table.rows[name].slot for name in names], np.int64)
        counts = np.array([1 + (count - 1) * (i % 2) for i in range(len(names))], np.int64)
        self.batch = names, slots, counts
        self.emit()

    def repeat(self, times: int, _: int) -> None:
        for _ in range(times):
            if self.batch is not None and set(self.batch[0]) <= set(self.live):
                self.now += 7
                self.emit()

    def emit(self) -> None:
        names, slots, counts = self.batch
        expected: dict[str, list[int]] = {"missed": [], "overdue": [], "gaps": [], "totals": [], "slo": []}
        for name, count in zip(names, counts.tolist(), strict=True):
            one = self.live[name]
            expected["overdue"].append(self.now - one.state.next_deadline_ns)
            expected["missed"].append(one.state.emit(self.now, count))
            expected["gaps"].append(self.now - one.tokens[-1] if one.tokens else -1)
            one.tokens += [self.now] * count
            expected["totals"].append(len(one.tokens))
            expected["slo"].append(CLASSES.index(one.slo))
        self.pending.append((self.table.advance(slots, counts, self.now), expected))
        for name in names:
            slot = self.table.rows[name].slot
            assert self.table.deadline_ns[slot] == self.live[name].state.next_deadline_ns

    def leave(self, which: int, status: RequestStatus) -> None:
        if not self.live:
            return
        name = list(self.live)[which % len(self.live)]
        one = self.live.pop(name)
        due = one.state.next_deadline_ns
        slot = self.table.rows[name].slot
        outcome = self.table.remove(name, status, self.now)
        late = one.state.give_up(self.now) if status != "finished" else 0
        assert (outcome.met, outcome.missed, outcome.late) == (one.state.met, one.state.missed, late)
        assert outcome.stall_ns == (self.now - due if late and one.tokens else 0)
        assert outcome.tokens == len(one.tokens)
        assert outcome.first_ns == (one.tokens[0] if one.tokens else 0)
        last = one.tokens[-1] if one.tokens else self.now
        assert outcome.end_ns == (last if status == "finished" else self.now)
        assert self.table.slo_index[slot] == FREE
        timeline = self.table.timeline(outcome)
        assert list(timeline.token_ns) == one.tokens
        if status == "finished":
            first = timeline.prefill_ns + timeline.ttft_slack_ns
            times = inter_token_times(one.arrival, one.tokens)
            assert (timeline.met, timeline.missed) == count_deadlines(times, first, timeline.tbt_ns)
        self.pending.append((outcome, one))

    def observe(self) -> None:
        """What observers see, in order; possibly long after it happened."""
        pending, self.pending = self.pending, []
        for what, expected in pending:
            if isinstance(expected, Live):
                self.judge(what, expected)
                continue
            batch = what.tokens()
            missed = [0] * len(batch.slots) if batch.missed is None else batch.missed.tolist()
            found = {
                "missed": missed,
                "overdue": batch.overdue_ns.tolist(),
                "gaps": batch.gaps_ns.tolist(),
                "totals": batch.totals.tolist(),
                "slo": batch.slo_index.tolist(),
            }
            assert found == expected
            self.targets.emit(batch)

    def judge(self, outcome: Outcome, one: Live) -> None:
        found = self.targets.judge(outcome)
        if len(one.tokens) < 2:
            assert found == []
            return
        for (target, fluid), wanted in zip(found, TARGETS, strict=True):
            assert target == wanted
            state = DeadlineState.after_first_token(one.tokens[0], target)
            for now in one.tokens[1:]:
                state.emit(now)
            if outcome.status != "finished":
                state.give_up(outcome.end_ns)
            else:
                times = inter_token_times(one.arrival, one.tokens)
                batch = count_deadlines(times, 0, target, judge_first=False)
                assert (state.met, state.missed) == batch
            assert fluid == (state.met / (state.met + state.missed) >= 0.9)

    def run(self, operations: list[tuple[int, tuple[str, int, object]]]) -> None:
        for wait, (name, *rest) in operations:
            self.now += wait
            getattr(self, name)(*rest)
            if not self.lazily:
                self.observe()
        for name in list(self.live):
            self.leave(0, "finished")
            assert name not in self.live
        self.observe()
        assert not self.table.rows


@settings(deadline=None, max_examples=600)
@given(operations=OPERATIONS, lazily=st.booleans())
def test_columns_count_what_one_state_per_request_counts(
    operations: list[tuple[int, tuple[str, int, object]]], lazily: bool
):
    Engine(lazily=lazily).run(operations)


@settings(deadline=None, max_examples=250)
@given(
    steps=st.lists(st.tuples(st.integers(1, 60), st.sampled_from([1, 1, 3])), min_size=1, max_size=30),
    arrival=st.integers(1, 10**12),
)
def test_the_steady_batch_is_the_batch_made_anew_at_every_step(steps: list[tuple[int, int]], arrival: int):
    tables = [RequestTable(CLASSES, CURVE, snapshot) for snapshot in (SNAPSHOT, OTHER_SNAPSHOT)]
    for table in tables:
        for i, slo in enumerate(CLASSES):
            table.add(f"r{i}", slo, arrival, i, 9)
    slots, counts = np.array([0, 1]), np.array([1, 2])
    now = arrival
    for gap, _ in steps:
        now += gap
        steady = tables[0].emit(slots, counts, now)
        anew = tables[1].emit(slots.copy(), counts.copy(), now)
        for name in ("gaps_ns", "overdue_ns", "totals", "slo_index"):
            assert getattr(steady, name).tolist() == getattr(anew, name).tolist()
        assert (steady.missed is None) == (anew.missed is None)
    for i in range(2):
        one, other = (table.remove(f"r{i}", "aborted", now + 100) for table in tables)
        assert one[3:] == other[3:]


OTHER_SNAPSHOT = Snapshot.private()
