from dataclasses import replace

import pytest

from sarathi_plugin.core import NS_PER_MS, SloClass
from sarathi_plugin.demo import picture
from tests.unit.load.test_summary import FAILED, GOOD

MS = NS_PER_MS


def test_row_shows_what_the_deadlines_say():
    # due at 100, 200, 300 ms; the third comes at 750: late since 300, pause since 200, then due again at 850
    timeline = replace(GOOD, token_ns=(100 * MS, 200 * MS, 750 * MS, 850 * MS))
    row = picture.row(timeline, 0, "a")
    assert row.on_time == (0.1, 0.2, 0.85)
    assert row.late == (0.75,)
    assert row.stalls == ((0.3, 0.75),)
    assert row.pauses == ((0.2, 0.75),)
    assert row.waiting == (0.0, 0.1)
    assert not row.failed


def test_a_failed_request_is_overdue_to_its_end():
    row = picture.row(FAILED, 0, "c")
    assert row.failed
    assert row.stalls == ((0.1, 0.5),)
    assert row.waiting == (0.0, 0.5)


def test_picture_is_written(tmp_path):
    pytest.importorskip("matplotlib")
    rows = (picture.row(GOOD, 0, "a"), picture.row(FAILED, 0, "c"))
    path = tmp_path / "x.png"
    picture.draw(
        path, [picture.Panel("one", "sub", rows), picture.Panel("two", "sub", rows[:1])], SloClass("s", MS, 0)
    )
    assert path.read_bytes().startswith(b"\x89PNG")
