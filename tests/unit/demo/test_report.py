import io
from dataclasses import replace

import pytest
from rich.console import Console

from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.demo.arms import STOCK, Arm
from sarathi_plugin.demo.console import Screen
from sarathi_plugin.demo.report import duration, table, warnings
from sarathi_plugin.demo.run import ArmResult
from sarathi_plugin.load.client import Outcome
from sarathi_plugin.load.dispatch import Progress, RunResult
from sarathi_plugin.load.summary import summarise
from sarathi_plugin.workload.model import ScheduledRequest
from tests.unit.load.test_summary import FAILED, GOOD

REQUEST = ScheduledRequest(request_id="a", offset_ns=0, prompt="x", max_tokens=1)


def result(arm, *timelines):
    run = RunResult(0, tuple(Outcome(REQUEST, t) for t in timelines))
    return ArmResult(arm, run, summarise(timelines))


@pytest.mark.parametrize(
    ("ns", "text"),
    [(None, "-"), (12 * NS_PER_MS, "12 ms"), (1234 * NS_PER_MS, "1.23 s"), (13_800 * NS_PER_MS, "13.8 s")],
)
def test_duration(ns, text):
    assert duration(ns) == text


def test_table_has_both_arms():
    out = io.StringIO()
    Console(file=out, width=120).print(table([result(STOCK, GOOD), result(Arm("b", "other"), FAILED)]))
    text = out.getvalue()
    for words in ("stock vLLM", "other", "longest freeze", "100 ms", "100%", "0%", "1, 1"):
        assert words in text


def test_doubts_are_said():
    late = replace(GOOD, sent_ns=NS_PER_S)
    found = warnings(
        [result(STOCK, GOOD), result(Arm("b", "other"), late, replace(FAILED, error="reset: x"))]
    )
    assert len(found) == 2
    assert "other: the client itself" in found[0]
    assert "1 requests failed; the first: reset: x" in found[1]


def test_screen_without_a_terminal():
    out = io.StringIO()
    with Screen(Console(file=out, width=100)) as screen:
        screen.stage("Working")
        with screen.load("stock", 2) as show:
            show(Progress(2, 1, 1, 1))
        screen.say("Done [bold]")
    assert "Working ..." in out.getvalue()
    assert "Load on stock: 2 requests" in out.getvalue()
    assert "Done [bold]" in out.getvalue()
