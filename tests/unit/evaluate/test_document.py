"""The page of a report: what its cells hold, and that text stays text."""

from __future__ import annotations

import pytest

from sarathi_plugin.evaluate.document import Report, Section, Table
from sarathi_plugin.evaluate.sections import _settings

CELLS = {
    "interval": (
        "94.3 ms (50.3 ms to 1.1 s)",
        "<td>94.3\N{NO-BREAK SPACE}ms<small>(50.3\N{NO-BREAK SPACE}ms to 1.1\N{NO-BREAK SPACE}s)</small></td>",
    ),
    "name": ("no-ordering", '<td class="name">no-ordering</td>'),
    "words": ("given by hand", '<td class="">given by hand</td>'),
    "sentence": ("Is every D_d longer than a decode step without interference?", '<td class="text">Is every'),
    "markup": ("<b> (x)", "<td>&lt;b&gt;<small>(x)</small></td>"),
}


@pytest.mark.parametrize(("text", "html"), CELLS.values(), ids=CELLS.keys())
def test_cells(text: str, html: str):
    assert html in Report("t", "a", (), [Section("s", [Table(["", "x"], [["r", text]])])]).html()


def test_a_table_without_a_head_has_none():
    report = Report("t", "a", (), [Section("s", [Table(["", ""], [["mode", "live"]])])])
    assert "<thead>" not in report.html()
    assert "|  |  |\n| --- | --- |\n| mode | live |" in report.markdown("p")


def test_settings_in_a_line_as_they_are_written():
    found = {"scheduler": "sarathi", "async_scheduling": False, "policy": {"order": "arrival"}, "classes": {}}
    assert (
        _settings(found, "classes") == "scheduler: sarathi, async_scheduling: false, policy: {order: arrival}"
    )
    assert _settings({}) == ""
