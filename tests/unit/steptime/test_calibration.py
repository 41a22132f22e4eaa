"""The calibration report: its figures are right, its text and picture are written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import StepShape
from sarathi_plugin.records import StepRecord
from sarathi_plugin.steptime.calibration import Errors, assess, errors, report_text, write_report
from sarathi_plugin.steptime.fit import fit_profile
from sarathi_plugin.steptime.machine import ProfileModel
from tests.unit.steptime.machines import FACTS, profile, record, recorded, shapes

TRUTH = profile()
DECODE, MIXED, PREFILL = StepShape(8, 8, 800), StepShape(9, 9, 900, 64, 2048.0), StepShape(0, 0, 0, 2049, 2e6)


def steps(*parts: tuple[StepShape, float]) -> list[StepRecord]:
    """Steps that took so many times what the profile says."""
    model = ProfileModel(TRUTH)
    return [
        record(n, 10**9 * n, round(model.predict_ns(shape) * ratio), shape)
        for n, (shape, ratio) in enumerate(parts, 1)
    ]


def test_errors_of_some_steps():
    found = errors(np.array([100, 300]), np.array([200, 200]), total=1000)
    assert (found.steps, found.time_share, found.sum_ratio) == (2, 0.4, 1.0)
    assert (found.mean_error, found.bias) == pytest.approx((0.5, 0.0))
    assert errors(np.array([100]), np.array([200])).bias == -0.5


def test_kinds_and_regions_have_errors_of_their_own():
    report = assess(TRUTH, steps((DECODE, 1.0), (DECODE, 2.0), (MIXED, 1.0), (PREFILL, 0.5)))
    assert report.by_kind["decode"].mean_error == pytest.approx(0.25)
    assert report.by_kind["decode"].sum_ratio == pytest.approx(2 / 3)
    assert report.by_kind["mixed"].mean_error == pytest.approx(0)
    assert report.by_kind["prefill"].bias == pytest.approx(1.0)
    assert report.overall.steps == 4
    assert sum(found.time_share for found in report.by_kind.values()) == pytest.approx(1)
    assert [(r.kind, r.decode_rows, r.prefill_tokens, r.errors.steps) for r in report.regions] == [
        ("decode", "1-8", "0", 2),
        ("mixed", "9-32", "1-64", 1),
        ("prefill", "0", "2049+", 1),
    ]
    assert sum(r.errors.time_share for r in report.regions) == pytest.approx(1)
    assert report.held_out is None


def test_a_bias_under_traffic_is_a_row_and_beyond_a_tenth_a_warning():
    given = steps((DECODE, 1.0), (MIXED, 1.0), (DECODE, 0.5), (DECODE, 1.09), (MIXED, 1.25), (PREFILL, 1.25))
    report = assess(TRUTH, given, traffic=[False] * 3 + [True] * 3)
    assert {kind: found.steps for kind, found in report.traffic.items()} == {"decode": 1, "with prompts": 2}
    assert report.traffic["with prompts"].bias == pytest.approx(-0.2)
    text = report_text(report)
    assert re.search(r"^traffic: with prompts +2 .* -20\.0%$", text, re.MULTILINE)
    assert re.findall(r"^Warning: .*", text, re.MULTILINE) == [
        "Warning: under traffic, steps of kind with prompts are predicted at 0.80 times their time in the mean; "
        "capacities predicted with this profile may be off by as much."
    ]
    everything = assess(TRUTH, given, traffic=[True] * 6)
    assert everything.traffic == {}
    assert "traffic" not in report_text(everything)


def test_a_fit_that_does_not_hold_is_a_warning():
    shape = StepShape(1, 1, 100)
    parts = steps(*[(shape, 0.01)] * 4)
    for mean_error, wanted in ((0.2, 0), (0.93, 1)):
        off = Errors(4, 1.0, 1.0, mean_error, 0.0)
        report = assess(profile(), parts, held_out=off)
        assert len(report.warnings) == wanted
        assert ("off by 93%" in report_text(report)) == bool(wanted)


def test_steps_of_traffic_that_carried_nothing_are_left_out():
    given = [*steps((DECODE, 1.0), (MIXED, 2.0)), record(3, 10**11, 0, DECODE), *steps((DECODE, 4.0))]
    report = assess(TRUTH, given, traffic=[False, True, True, False])
    assert {kind: found.steps for kind, found in report.traffic.items()} == {"with prompts": 1}


def test_the_worst_steps_come_first():
    report = assess(TRUTH, steps((DECODE, 1.1), (MIXED, 1.0), (PREFILL, 1.5), (DECODE, 2.0)))
    assert [step.step for step, _ in report.worst] == [3, 4, 1, 2]
    assert report.worst[0][1] == ProfileModel(TRUTH).predict_ns(PREFILL)


def test_steps_that_carried_nothing_are_left_out():
    given = [*steps((DECODE, 1.0)), record(2, 10**10, 10**6, StepShape()), record(3, 10**11, 0, DECODE)]
    assert assess(TRUTH, given).overall.steps == 1
    with pytest.raises(ConfigError, match="There is no step to compare"):
        assess(TRUTH, given[1:])


def test_the_text_says_what_was_used_and_what_came_of_it():
    rng = np.random.default_rng(0)
    run = recorded(TRUTH, shapes(600, rng), rng, sigma=0.05, host_s=(0.0005, 0.0))
    _, report = fit_profile(
        run, name="x", model=FACTS, hardware="a machine", memory_bytes=1, vllm_version="", source=""
    )
    text = report_text(report)
    assert "Step-time profile x: a model on a machine" in text
    assert "580 steps used; left out: 20 of the warm-up." in text
    assert "Host time between steps: 0.500 ms" in text
    assert re.search(r"^all +580 +100\.0% +1\.0000 +[345]\.\d% +\+", text, re.MULTILINE)
    assert re.search(r"^held out \(fit to the other half\) +280 ", text, re.MULTILINE)
    assert len(re.findall(r"^step \d+: ", text, re.MULTILINE)) == 10
    assert "left out: none." in report_text(assess(TRUTH, run))


@pytest.mark.parametrize("parts", [[(DECODE, 1.0)], [(DECODE, 0.9), (MIXED, 1.1), (PREFILL, 5.0)] * 50])
def test_text_and_picture_are_written(tmp_path: Path, parts: list[tuple[StepShape, float]]):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "new" / "report"
    written = write_report(assess(TRUTH, steps(*parts)), folder)
    assert written == [folder / "calibration.txt", folder / "calibration.png"]
    assert written[1].read_bytes().startswith(b"\x89PNG")
    assert written[1].stat().st_size > 10_000


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^Cannot write .*file.*: .*; choose another --report\.$"):
        write_report(assess(TRUTH, steps((DECODE, 1.0))), tmp_path / "file")
