"""The columns of unfinished prompts against the rows they come from."""

from __future__ import annotations

import random

import pytest

from sarathi_plugin.core import NS_PER_MS, NS_PER_S, SloClass
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.telemetry.snapshot import Snapshot
from sarathi_plugin.telemetry.table import RequestTable

CHAT = SloClass("chat", 50 * NS_PER_MS, NS_PER_S)
BATCH = SloClass("batch", 200 * NS_PER_MS, 8 * NS_PER_S)


@pytest.fixture
def table(tmp_path) -> RequestTable:
    return RequestTable([CHAT, BATCH], PrefillCurve(0.01, 1e-4, 0.0), Snapshot.create(tmp_path / "snapshot"))


def test_a_new_request_waits_with_all_of_its_prompt(table: RequestTable):
    row = table.add("a", BATCH, 7, 1000, 10)
    prompts = table.prompts.take(())
    assert [column.tolist() for column in prompts] == [
        [row.slot], [7], [row.prefill_deadline_ns], [1], [1000], [0], [0]
    ]  # fmt: skip
    assert table.row_at(row.slot) is row


def test_prompts_under_way_come_first_with_what_is_left_of_them(table: RequestTable):
    rows = [table.add(name, CHAT, 0, 500, 10) for name in "abc"]
    for row in rows[1:]:
        table.prompts.leave(row.slot)
    rows[2].computed_tokens, rows[1].computed_tokens = 100, 450
    prompts = table.prompts.take([rows[2], rows[1]])
    assert prompts.slots.tolist() == [rows[2].slot, rows[1].slot, rows[0].slot]
    assert prompts.left_tokens.tolist() == [400, 50, 500]


def test_a_preempted_request_waits_again_with_its_answer_to_compute_anew(table: RequestTable):
    row = table.add("a", CHAT, 0, 500, 10)
    table.prompts.leave(row.slot)
    assert not len(table.prompts.take(()).slots)
    row.total_tokens, row.preempted = 530, True
    table.prompts.wait(row)
    prompts = table.prompts.take(())
    assert (prompts.left_tokens.tolist(), prompts.preempted.tolist()) == ([530], [1])


def test_who_leaves_is_gone_and_its_slot_serves_another(table: RequestTable):
    first = table.add("a", CHAT, 0, 500, 10)
    table.remove("a", "aborted", 5)
    assert not len(table.prompts.take(()).slots)
    with pytest.raises(LookupError, match="no request in slot"):
        table.row_at(first.slot)
    second = table.add("b", BATCH, 9, 70, 10)
    assert second.slot == first.slot
    assert table.prompts.take(()).left_tokens.tolist() == [70]


def test_any_coming_and_going_leaves_just_those_that_wait(table: RequestTable):
    rng, waiting, running = random.Random(0), {}, {}
    for i in range(600):
        action = rng.random()
        if action < 0.5:
            waiting[str(i)] = table.add(str(i), rng.choice([CHAT, BATCH]), i, rng.randint(1, 999), 10)
        elif action < 0.75 and waiting:
            name = rng.choice(list(waiting))
            running[name] = waiting.pop(name)
            table.prompts.leave(running[name].slot)
        elif waiting or running:
            home = rng.choice([side for side in (waiting, running) if side])
            name = rng.choice(list(home))
            del home[name]
            table.remove(name, rng.choice(["finished", "aborted"]), 10**9)
        prompts = table.prompts.take(())
        found = sorted(table.row_at(slot).request_id for slot in prompts.slots.tolist())
        assert found == sorted(waiting)
        for slot, left in zip(prompts.slots.tolist(), prompts.left_tokens.tolist(), strict=True):
            assert left == table.row_at(slot).remaining_tokens
