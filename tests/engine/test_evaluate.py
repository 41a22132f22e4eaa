"""Experiments on the simulator: end to end, and the traps that a comparison must not fall into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sarathi_plugin.evaluate import command, report
from sarathi_plugin.evaluate.arms import resolve
from sarathi_plugin.evaluate.metrics import METRICS
from sarathi_plugin.evaluate.plan import units_of
from sarathi_plugin.evaluate.simulated import Job, work
from sarathi_plugin.evaluate.spec import Experiment
from sarathi_plugin.evaluate.store import Store
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


def shares(wanted: Experiment, folder: Path) -> Any:
    """All runs of an experiment, in this process."""
    from sarathi_plugin.evaluate.analysis import Results

    arms = {arm.name: arm for arm in resolve(wanted, {})}
    units, store = units_of(wanted, list(arms)), Store(folder)
    (folder / "runs").mkdir(parents=True)
    for unit in units:
        work(Job(unit, arms[unit.arm], wanted, store))
    resolution = wanted.capacity.resolution if wanted.capacity else 0.0
    return Results(store.runs(units), list(arms), {c.name: c.requests for c in wanted.workloads}, resolution)


@pytest.mark.slow
def test_two_copies_of_one_arm_show_no_difference(tmp_path: Path, machine: str):
    """At loads where shares are anywhere between none and all: five pairs each, twenty times."""
    claims = []
    for trial in range(20):
        seeds = [1000 * (trial + 1) + i for i in range(5)]
        asked = small(machine, seeds=seeds, workloads=[CASE | {"loads": [20.0, 28.0]}])
        asked["arms"] = [{"name": "stock"}, {"name": "ours"}]
        found = shares(Experiment.model_validate(settings(**asked)), tmp_path / str(trial))
        claims.append(found.claim(METRICS["fluid_share"], "ours", "stock"))
    assert any(claim.estimate.value != 0 for claim in claims)
    assert sum(not claim.shown for claim in claims) >= 19, [claim.amount() for claim in claims]


def test_a_known_difference_in_capacity_is_found(tmp_path: Path, machine: str):
    """A machine whose every step takes 1 / 1.1 of the time carries about 1.1 times the load."""
    slow = make_profile(noise=NOISE)
    fast = slow.model_copy(update={"name": "fast", "linear_s": [(n, s / 1.1) for n, s in slow.linear_s]})
    save_profile(fast, tmp_path / "fast.json")
    asked = small(
        machine,
        seeds=[1, 2, 3, 4],
        capacity={"requests": 250},
        workloads=[CASE | {"loads": [20.0], "requests": 10}],
    )
    asked["arms"] = [{"name": "stock"}, {"name": "ours", "profile": str(tmp_path / "fast.json")}]
    found = shares(Experiment.model_validate(settings(**asked)), tmp_path / "out")
    claim = found.claim(METRICS["capacity"], "ours", "stock")
    assert claim.shown, claim.amount()
    assert claim.estimate.low < 1.1 < claim.estimate.high, claim.amount()


def test_a_crippled_baseline_is_told(tmp_path: Path, machine: str):
    asked = small(machine, seeds=[1, 2, 3], workloads=[CASE | {"loads": [8.0]}])
    asked["arms"] = [
        {"name": "stock", "engine": {"max_num_batched_tokens": 64}},
        {"name": "ours", "scheduler": "sarathi"},
    ]
    evaluate(write(tmp_path, **asked), tmp_path / "out")
    found = report.build(tmp_path / "out")
    [row] = [row for row in found.sections[1].blocks[1].rows if row[0] == "AP2"]
    assert row[1] == "FAIL"
    assert "the baseline was not tuned" in row[3]
    assert any("Was the baseline tuned" in note for note in found.notes)


def test_an_invalid_run_is_not_used_and_not_hidden(tmp_path: Path, machine: str):
    asked = small(machine, seeds=[1, 2, 3], workloads=[CASE | {"loads": [8.0]}])
    out = tmp_path / "out"
    evaluate(write(tmp_path, **asked), out)
    path = out / "runs" / "chats-8-s2-r0-ours" / "run.json"
    facts = json.loads(path.read_text())
    facts["validity"]["reasons"] = ["the client sent up to 80 ms late"]
    facts["figures"]["fluid_share"] = 0.0
    path.write_text(json.dumps(facts))
    found = report.build(out)
    assert "2 seeds" in found.answer
    assert "1 invalid runs are not used." in found.notes
    [table] = [
        block
        for s in found.sections
        if s.title == "Validity of the runs"
        for block in s.blocks
        if not isinstance(block, str)
    ]
    assert list(table.rows) == [["chats-8-s2-r0-ours", "the client sent up to 80 ms late"]]
