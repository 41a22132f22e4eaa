"""Deadlines in shared memory: readable from another process while a step runs, private to the user, cleaned up."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.telemetry import snapshot as module
from sarathi_plugin.telemetry.snapshot import (
    SECONDS,
    Overdue,
    Snapshot,
    remove_stale_snapshots,
    snapshot_path,
)
from sarathi_plugin.telemetry.table import RequestTable
from tests.unit.telemetry.scene import FAST, SLOW, at


def run(code: str, *arguments: object) -> str:
    """What a process of its own prints."""
    argv = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


READ = """
import json, sys
from pathlib import Path
from sarathi_plugin.telemetry.snapshot import Snapshot
found = Snapshot.open(Path(sys.argv[1]))
late = [[o.count, o.oldest_ns] for o in found.overdue(int(sys.argv[2]), 2)]
print(json.dumps([found.pid, late, found.longest_stall_ns(int(sys.argv[2]))]))
"""
WRITE_AND_DIE = """
import os, sys
from pathlib import Path
from sarathi_plugin.telemetry.snapshot import Snapshot
mine = Snapshot.create(Path(sys.argv[1]))
mine.deadline_ns[0], mine.slo_index[0] = 100, 0
mine.set_extent(1, 1)
print(os.getpid(), flush=True)
os._exit(9)
"""


def test_another_process_sees_what_is_overdue_now(tmp_path: Path):
    path = tmp_path / "snapshot"
    mine = Snapshot.create(path)
    table = RequestTable([FAST, SLOW], PrefillCurve(0, 0, 0), mine)
    for name, slo in {"a": FAST, "b": FAST, "c": SLOW, "d": FAST}.items():
        table.add(name, slo, at(0), 1, 1)  # due at 300, SLOW at 2000
    slots = {name: row.slot for name, row in table.rows.items()}
    table.emit(np.array([slots["b"]]), np.array([3]), at(10))  # due at 450
    table.remove("d", "finished", at(20))
    mine.note_stall(at(0), 77)

    def read(ms: float) -> list[object]:
        return json.loads(run(READ, path, at(ms)))[1:]

    assert read(300) == [[[0, 0], [0, 0]], 77]
    assert read(300.5) == [[[1, 500_000], [0, 0]], 77]
    assert read(450.5) == [[[2, 150_500_000], [0, 0]], 77]
    assert read(2001) == [[[2, 1_701_000_000], [1, 1_000_000]], 77]
    table.emit(np.array([slots["a"]]), np.array([1]), at(2001))  # due at 2051
    assert read(2001) == [[[1, 1_551_000_000], [1, 1_000_000]], 77]


def test_what_a_killed_engine_left_can_be_read_and_names_its_process(tmp_path: Path):
    path = tmp_path / "snapshot"
    with pytest.raises(subprocess.CalledProcessError) as killed:
        run(WRITE_AND_DIE, path)
    left = Snapshot.open(path)
    assert left.pid == int(killed.value.stdout)
    assert left.overdue(130, 1) == [Overdue(1, 30)]


def test_the_file_is_for_this_user_alone(tmp_path: Path):
    path = tmp_path / "snapshot"
    Snapshot.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_reader_cannot_write(tmp_path: Path):
    Snapshot.create(tmp_path / "snapshot")
    reader = Snapshot.open(tmp_path / "snapshot")
    with pytest.raises(ValueError, match="read-only"):
        reader.deadline_ns[0] = 1


def test_nothing_is_followed_or_kept_from_what_lay_at_the_path(tmp_path: Path):
    victim, path = tmp_path / "victim", tmp_path / "snapshot"
    victim.write_text("mine")
    path.symlink_to(victim)
    Snapshot.create(path)
    assert victim.read_text() == "mine"
    assert not path.is_symlink()


@pytest.mark.parametrize("content", [None, b"", b"x" * 100, bytes(module._LENGTH * 8)])
def test_a_reader_waits_for_a_file_that_is_complete(tmp_path: Path, content: bytes | None):
    path = tmp_path / "snapshot"
    if content is not None:
        path.write_bytes(content)
    assert Snapshot.open(path) is None


def test_closing_removes_the_file_and_may_be_repeated(tmp_path: Path):
    mine = Snapshot.create(tmp_path / "snapshot")
    mine.close()
    assert not (tmp_path / "snapshot").exists()
    mine.close()
    Snapshot.private().close()


def test_engines_and_servers_of_one_user_have_paths_of_their_own():
    paths = {snapshot_path(session, engine) for session in ("a", "b") for engine in (0, 1)}
    assert len(paths) == 4
    assert len({path.parent for path in paths}) == 1


def test_files_of_dead_engines_are_removed_and_those_of_live_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = module.snapshot_path
    monkeypatch.setattr(
        module, "snapshot_path", lambda session, engine: tmp_path / real(session, engine).name
    )
    dead, alive = module.snapshot_path("dead", 0), module.snapshot_path("alive", 0)
    foreign, broken = tmp_path / "sarathi-other", module.snapshot_path("broken", 0)
    prefix = module.own_prefix()
    container = tmp_path / dead.name.replace(prefix, f"{prefix.rpartition('-')[0]}1-")
    with pytest.raises(subprocess.CalledProcessError):
        run(WRITE_AND_DIE, dead)
    Snapshot.create(alive)
    foreign.write_bytes(dead.read_bytes())
    container.write_bytes(dead.read_bytes())
    broken.write_bytes(b"x")
    remove_stale_snapshots()
    assert not dead.exists()
    assert alive.exists()
    assert foreign.exists()
    assert container.exists()
    assert broken.exists()


# -- the longest stall of the last minute ------------------------------------------------------------------------


def second(number: float) -> int:
    return round(number * NS_PER_S)


def test_the_longest_stall_of_the_last_minute_is_seen_for_a_minute():
    ring = Snapshot.private()
    assert ring.longest_stall_ns(second(1000)) == 0
    ring.note_stall(second(1000.2), 50)
    ring.note_stall(second(1000.9), 30)
    ring.note_stall(second(1001), 20)
    assert ring.longest_stall_ns(second(1001)) == 50
    assert ring.longest_stall_ns(second(1059.9)) == 50
    assert ring.longest_stall_ns(second(1060)) == 20
    assert ring.longest_stall_ns(second(1061)) == 0


def test_a_place_in_the_ring_is_taken_over_when_it_has_gone_round():
    ring = Snapshot.private()
    ring.note_stall(second(1000), 90)
    ring.note_stall(second(1000 + SECONDS), 10)
    assert ring.longest_stall_ns(second(1000 + SECONDS)) == 10
    ring.note_stall(second(1000 + SECONDS) + 5, 40)
    assert ring.longest_stall_ns(second(1000 + SECONDS)) == 40


def test_the_ring_remembers_exactly_the_last_minute_however_often_it_goes_round():
    ring = Snapshot.private()
    stalls = {1000 + i: 1 + i * 7919 % 1000 for i in range(3 * SECONDS)}
    for now, stall in stalls.items():
        ring.note_stall(second(now), stall)
        expected = max(stall for when, stall in stalls.items() if now - 60 < when <= now)
        assert ring.longest_stall_ns(second(now)) == expected


def test_a_quiet_hour_leaves_nothing():
    ring = Snapshot.private()
    ring.note_stall(second(1000), 90)
    assert ring.longest_stall_ns(second(1000 + 3600)) == 0
