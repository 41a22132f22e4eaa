"""Experiments on the simulator: end to end, and the traps that a comparison must not fall into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sarathi_plugin.config import CurveFile, load_curve
from sarathi_plugin.evaluate import command, report, tune
from sarathi_plugin.evaluate.analysis import Results
from sarathi_plugin.evaluate.arms import resolve
from sarathi_plugin.evaluate.metrics import METRICS
from sarathi_plugin.evaluate.plan import units_of
from sarathi_plugin.evaluate.simulated import Job, work
from sarathi_plugin.evaluate.spec import Experiment
from sarathi_plugin.evaluate.store import Store, StoredRun, trace_of
from sarathi_plugin.load.curve import write_curve
from sarathi_plugin.steptime.profile import save_profile
from tests.engine.simulations import NOISE, make_profile
from tests.unit.evaluate.experiments import settings, write

pytestmark = pytest.mark.vllm

CASE: dict[str, Any] = settings()["workloads"][0] | {"prompt_scale": 0.2, "output_scale": 0.1, "requests": 60}
ENGINE = {"max_model_len": 4096, "max_num_seqs": 64}


@pytest.fixture
def machine(tmp_path: Path) -> str:
    """A small machine with noise, as a file."""
    save_profile(make_profile(noise=NOISE), tmp_path / "machine.json")
    return str(tmp_path / "machine.json")


def small(machine: str, **more: Any) -> dict[str, Any]:
    return {
        "profile": machine, "prefill_curve": "a100-llama-3-8b", "engine": ENGINE, "workloads": [CASE],
    } | more  # fmt: skip


def evaluate(path: Path, out: Path) -> list[str]:
    said: list[str] = []
    command.evaluate(path, out, plan_only=False, simulated=False, workers=1, say=said.append)
    return said


def test_tuning_runs_at_its_share_of_the_loads(machine: str, monkeypatch: pytest.MonkeyPatch):
    asked = small(machine, tune={"trials": 2, "requests": 10, "load_share": 0.25})
    asked["arms"] = [{"name": "stock", "tune": True}, {"name": "ours", "scheduler": "sarathi"}]
    wanted = Experiment.model_validate(settings(**asked))
    seen = []

    def noted(case: Any, load: float, seed: int, *, count: int | None = None) -> Any:
        seen.append(load)
        return trace_of(case, load, seed, count=count)

    monkeypatch.setattr(tune, "trace_of", noted)
    tune.score(wanted, wanted.arms[0], {})
    assert seen == [0.25 * load for load in CASE["loads"]]


def test_an_experiment_from_file_to_report(tmp_path: Path, machine: str):
    asked = small(
        machine, ablations=True, seeds=[11, 12], workloads=[CASE | {"loads": [8.0], "requests": 20}]
    )
    asked["arms"] = [{"name": "stock", "tune": True}, {"name": "ours", "scheduler": "sarathi"}]
    asked["tune"] = {"trials": 3, "requests": 10}
    path, out = write(tmp_path, **asked), tmp_path / "out"
    said = evaluate(path, out)
    runs = sorted(p.name for p in (out / "runs").iterdir())
    assert len(runs) == 6 * 2
    arms = json.loads((out / "resolved.json").read_text())["arms"]
    assert [arm["name"] for arm in arms] == [
        "stock",
        "ours",
        "plugin-only",
        "static-budget",
        "no-ordering",
        "no-relegation",
    ]
    assert arms[0]["trials"] == 3
    html, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert said[-2] in text
    assert html.count("<svg") == 5
    for word in (
        "Checklist",
        "Capacity",
        "Distributions",
        "Waiting, prefill, decode",
        "The worst requests",
        "Steps",
        "Tuning",
    ):
        assert f"## {word}" in text
    assert "stock: 3 trials, ours: 0 trials" in text
    again = evaluate(path, out)
    assert f"{len(runs)} runs, {len(runs)} done" in again
    assert again[-2] == said[-2]
    assert (out / "report.html").read_text() == html


def measure(wanted: Experiment, folder: Path, *only: str) -> list[StoredRun]:
    """The runs of an experiment (of some arms), in this process."""
    arms = {arm.name: arm for arm in resolve(wanted, {})}
    units, store = units_of(wanted, list(only or arms)), Store(folder)
    (folder / "runs").mkdir(parents=True)
    for unit in units:
        work(Job(unit, arms[unit.arm], wanted, store))
    return store.runs(units)


@pytest.mark.slow
def test_two_copies_of_one_arm_show_no_difference(tmp_path: Path, machine: str):
    """At a load where shares are anywhere between none and all: five pairs each, twenty times."""
    claims = []
    for trial in range(20):
        seeds = [1000 * (trial + 1) + i for i in range(5)]
        asked = small(machine, seeds=seeds, workloads=[CASE | {"loads": [24.0]}])
        asked["arms"] = [{"name": "stock"}, {"name": "ours"}]
        runs = measure(Experiment.model_validate(settings(**asked)), tmp_path / str(trial))
        results = Results(runs, ["stock", "ours"], {"chats": CASE["requests"]})
        claims.append(results.claim(METRICS["fluid_share"], "ours", "stock"))
    assert any(claim.estimate.value != 0 for claim in claims)
    assert sum(not claim.shown for claim in claims) >= 19, [claim.amount() for claim in claims]


@pytest.mark.slow
def test_a_known_difference_in_capacity_is_found(tmp_path: Path, machine: str):
    """A world that is faster by 1.1 in everything, deadlines too, carries exactly 1.1 times the load."""
    factor, slow, curve = 1.1, make_profile(noise=NOISE), load_curve("a100-llama-3-8b")
    linear = [(tokens, seconds / factor) for tokens, seconds in slow.linear_s]
    save_profile(slow.model_copy(update={"linear_s": linear}), tmp_path / "fast.json")
    scaled = CurveFile(
        c0_s=curve.c0_s / factor,
        c1_s_per_token=curve.c1_s / factor,
        c2_s_per_token2=curve.c2_s / factor,
    )
    write_curve(tmp_path / "curve.json", scaled)
    asked = small(
        machine,
        seeds=[1, 2, 3, 4, 5, 6, 7, 8],
        capacity={"requests": 200, "resolution": 0.02, "share": 0.9},
        workloads=[CASE | {"loads": [20.0], "requests": 10}],
        arms=[{"name": "stock"}, {"name": "ours"}],
    )
    faster = asked | {
        "profile": str(tmp_path / "fast.json"),
        "prefill_curve": str(tmp_path / "curve.json"),
        "classes": {"standard": {"tbt_ms": 50 / factor, "ttft_slack_ms": 300 / factor}},
    }
    runs = [
        *measure(Experiment.model_validate(settings(**asked)), tmp_path / "a", "stock"),
        *measure(Experiment.model_validate(settings(**faster)), tmp_path / "b", "ours"),
    ]
    claim = Results(runs, ["stock", "ours"], {"chats": 10}, 0.02).claim(METRICS["capacity"], "ours", "stock")
    assert claim.shown, claim.amount()
    assert claim.estimate.low < factor < claim.estimate.high, claim.amount()


def test_a_crippled_baseline_is_told_and_an_invalid_run_neither_used_nor_hidden(tmp_path: Path, machine: str):
    asked = small(machine, seeds=[1, 2, 3], workloads=[CASE | {"loads": [8.0], "requests": 20}])
    crippled = {"name": "stock", "engine": {"max_num_batched_tokens": 64}}
    asked["arms"] = [crippled, {"name": "ours", "scheduler": "sarathi"}]
    out = tmp_path / "out"
    evaluate(write(tmp_path, **asked), out)
    found = report.build(out)
    [row] = [row for row in found.sections[1].blocks[1].rows if row[0] == "AP2"]
    assert row[1] == "FAIL"
    assert "the baseline was not tuned" in row[3]
    assert any("Was the baseline tuned" in note for note in found.notes)
    assert "3 seeds" in found.answer

    path = out / "runs" / "chats-8-s2-r0-ours" / "run.json"
    facts = json.loads(path.read_text())
    facts["validity"]["reasons"] = ["the client sent up to 80 ms late"]
    path.write_text(json.dumps(facts))
    found = report.build(out)
    assert "2 seeds" in found.answer
    assert "1 invalid runs are not used." in found.notes
    [section] = [section for section in found.sections if section.title == "Validity of the runs"]
    assert list(section.blocks[1].rows) == [["chats-8-s2-r0-ours", "the client sent up to 80 ms late"]]
