"""``sarathi evaluate`` and ``sarathi report``: bad input is one sentence on stderr and exit code 2."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sarathi_plugin import cli
from sarathi_plugin.evaluate.arms import resolve
from sarathi_plugin.evaluate.plan import Unit
from sarathi_plugin.evaluate.store import Store
from sarathi_plugin.load.timelines import write_timelines
from tests.unit.evaluate.experiments import experiment, settings, timeline, write

WORKLOAD: dict[str, Any] = settings()["workloads"][0]
STOCK, OURS = settings()["arms"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs ``sarathi`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.app, list(arguments))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"armz": []}, "armz: this key is not known; the nearest is arms"),
    "unknown metric": ({"metric": "speed"}, "metric: there is no 'speed'; use one of fluid_share, "),
    "subject that is no arm": ({"subject": "mine"}, "subject: there is no arm 'mine'; arms: ours, stock."),
    "same arm twice": ({"baseline": "ours"}, "subject and baseline are the same arm."),
    "two arms of one name": ({"arms": [STOCK, STOCK, OURS]}, "two arms are the same."),
    "one arm": ({"arms": [OURS]}, "arms: List should have at least 2 items"),
    "seed in both": (
        {"arms": [STOCK | {"tune": True}, OURS], "tune": {"seeds": [12]}},
        "seed 12 is both tuned on and compared on; use other seeds to compare.",
    ),
    "tuning without a section": (
        {"arms": [STOCK | {"tune": True}, OURS]},
        "arm 'stock' is to be tuned, but there is no tune section.",
    ),
    "section without tuning": ({"tune": {}}, "there is a tune section, but no arm with tune: true."),
    "server of a simulation": (
        {"arms": [STOCK, {"name": "ours", "url": "http://127.0.0.1:1"}]},
        "arm 'ours' has a url, but the mode is simulated.",
    ),
    "capacity of a live server": (
        {"mode": "live", "capacity": {}},
        "capacity is searched in simulated mode only",
    ),
    "capacity that is not searched": (
        {"metric": "capacity"},
        "the metric is capacity, but there is no capacity section.",
    ),
    "load twice": ({"workloads": [WORKLOAD | {"loads": [1, 1]}]}, "workloads.0.loads: a load is named twice"),
    "no such kind": ({"workloads": [WORKLOAD | {"source": "chat"}]}, "No workload 'chat': give the path"),
    "no such profile": ({"profile": "b200"}, "No step-time profile 'b200': give a file or one of "),
    "no such engine argument": (
        {"engine": {"max_seqs": 3}},
        "arm 'stock': engine: max_seqs: this key is not known; the nearest is max_num_seqs.",
    ),
    "no such policy": (
        {"arms": [STOCK, {"name": "ours", "scheduler": "sarati"}]},
        "Unknown scheduler 'sarati'; known: sarathi",
    ),
    "settings of stock": (
        {"arms": [STOCK | {"sarathi": {"slo": "gap"}}, OURS]},
        "Arm 'stock': stock vLLM takes no settings of ours",
    ),
    "no knobs known": (
        {"arms": [STOCK, {"name": "ours", "scheduler": "orca", "tune": True}], "tune": {}},
        "Arm 'ours': nothing is known to tune of 'orca'; name its knobs.",
    ),
    "knob of nothing": (
        {"arms": [STOCK, OURS | {"tune": True, "knobs": {"policy.x": {"choices": [1]}}}], "tune": {}},
        "Arm 'ours', knobs: No setting 'policy.x'; write KEY, sarathi.KEY or sarathi.policy.KEY.",
    ),
    "knob of everything": (
        {"arms": [STOCK, OURS | {"tune": True, "knobs": {"sarathi": {"choices": [1]}}}], "tune": {}},
        "Arm 'ours', knobs: sarathi is no setting; write sarathi.KEY.",
    ),
    "knob that is misspelt": (
        {"arms": [STOCK, OURS | {"tune": True, "knobs": {"max_seqs": {"low": 1, "high": 2}}}], "tune": {}},
        "Arm 'ours', knobs: max_seqs=1.0: arm 'ours': engine: max_seqs: this key is not known; the nearest is "
        "max_num_seqs.",
    ),
    "knob of the policy that is misspelt": (
        {"arms": [STOCK, OURS | {"tune": True, "knobs": {"sarathi.policy.x": {"choices": [1]}}}], "tune": {}},
        "Arm 'ours', knobs: sarathi.policy.x=1: ",
    ),
    "choices of text": (
        {
            "arms": [STOCK | {"tune": True, "knobs": {"max_num_seqs": {"choices": [8, "a"]}}}, OURS],
            "tune": {},
        },
        "Arm 'stock', knobs: max_num_seqs=a: arm 'stock': engine: max_num_seqs: Input should be a valid integer",
    ),
    "range below nothing": (
        {
            "arms": [
                STOCK | {"tune": True, "knobs": {"max_num_seqs": {"low": -5, "high": 9, "whole": True}}},
                OURS,
            ],
            "tune": {},
        },
        "Arm 'stock', knobs: max_num_seqs=-5: arm 'stock': engine: max_num_seqs: Input should be greater than 0",
    ),
    "range of fractions": (
        {
            "arms": [STOCK | {"tune": True, "knobs": {"max_num_seqs": {"low": 1, "high": 9}}}, OURS],
            "tune": {},
        },
        "max_num_seqs: Input should be a valid integer, got a number with a fractional part",
    ),
    "loads that print alike": (
        {"workloads": [WORKLOAD | {"loads": [1.0000001, 1.0000002]}]},
        "workloads.0.loads: two loads are alike in their first six digits",
    ),
    "knob without values": (
        {"arms": [STOCK, OURS | {"tune": True, "knobs": {"max_num_seqs": {"low": 1}}}], "tune": {}},
        "give choices, or low and high.",
    ),
    "knobs that are not used": (
        {"arms": [STOCK, OURS | {"knobs": {"max_num_seqs": {"choices": [1]}}}]},
        "arm 'ours' has knobs, but is not to be tuned: add tune: true.",
    ),
    "prompts that do not fit": ({"engine": {"max_model_len": 512}}, "more than the model length of 512"),
    "class that is not defined": (
        {"workloads": [WORKLOAD | {"source": "mixed-classes"}]},
        "asks for the SLO class 'batch': define it under classes.",
    ),
    "no such ablation": (
        {"ablations": ["no-luck"]},
        "No ablation 'no-luck' of this subject; there are plugin-only, ",
    ),
    "no list of arms": ({"arms": 3}, "arms: Input should be a valid list"),
    "no list of workloads": ({"workloads": 3}, "workloads: Input should be a valid list"),
    "flag that is ours": (
        {"mode": "live", "arms": [STOCK | {"flags": ["--scheduler", "sarathi"]}, OURS]},
        "Arm 'stock': leave --scheduler out of flags; it follows from scheduler, engine and sarathi.",
    ),
    "flag of an engine argument": (
        {"mode": "live", "live": {"flags": ["--no-async_scheduling"]}},
        "Arm 'stock': leave --async-scheduling out of flags; it follows from scheduler, engine and sarathi.",
    ),
    "speculation that no server knows": (
        {"mode": "live", "engine": {"speculation": {"tokens": 2, "acceptance": 0.7}}},
        "Arm 'stock': an acceptance rate cannot be served; name a method by the flag --speculative-config.",
    ),
    "more than the budget": (
        {"mode": "live", "budget_minutes": 1},
        "This is expected to take 5 min, more than budget_minutes: 1;",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_experiments_are_one_sentence(
    run: Callable[..., Result], tmp_path: Path, change: dict[str, Any], sentence: str
):
    write(tmp_path, **change)
    result = run("evaluate", "experiment.yaml")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]


def test_a_file_that_is_not_there_or_no_yaml(run: Callable[..., Result], tmp_path: Path):
    assert run("evaluate", "none.yaml").stderr == "Cannot read none.yaml: No such file or directory.\n"
    (tmp_path / "bad.yaml").write_text("a: [1\nb: 2")
    result = run("evaluate", "bad.yaml")
    assert "bad.yaml, line 2: not valid YAML" in result.stderr
    assert result.exit_code == 2


def test_the_plan_says_what_would_run_and_writes_nothing(run: Callable[..., Result], tmp_path: Path):
    write(tmp_path, ablations=True)
    result = run("evaluate", "experiment.yaml", "--plan")
    assert result.exit_code == 0
    assert "  no-ordering: sarathi (ablation: prompts in order of arrival)\n" in result.stdout
    assert "24 runs, 0 done\n" in result.stdout
    assert "expected: 0 s of tuning, " in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]


def test_flags_that_are_not_simulated_are_named(run: Callable[..., Result], tmp_path: Path):
    write(tmp_path, arms=[STOCK | {"flags": ["--enforce-eager", "--seed=3"]}, OURS])
    result = run("evaluate", "experiment.yaml", "--plan")
    assert "  The flags of stock are not simulated: --enforce-eager --seed=3.\n" in result.stdout


def test_a_server_that_is_not_there(run: Callable[..., Result], tmp_path: Path):
    write(
        tmp_path,
        mode="live",
        arms=[STOCK | {"url": "http://127.0.0.1:9"}, OURS | {"url": "http://127.0.0.1:9"}],
    )
    arms = [{"name": "stock", "url": "http://127.0.0.1:9"}, {"name": "ours", "url": "http://127.0.0.1:9"}]
    write(tmp_path, mode="live", arms=arms)
    result = run("evaluate", "experiment.yaml")
    assert result.stderr == "No vLLM server answers at http://127.0.0.1:9 (ConnectionError).\n"
    assert result.exit_code == 2


REPORTS = {
    "nothing": ((), "Give the folder of an experiment, or two runs with --compare A B."),
    "both": (
        ("folder", "--compare", "a", "b"),
        "Give the folder of an experiment, or two runs with --compare A B.",
    ),
    "no experiment": (("folder",), "folder holds no experiment; give a folder that sarathi evaluate wrote."),
    "no run yet": (("begun",), "begun holds no finished run yet; run sarathi evaluate first."),
    "arms of another version": (
        ("other",),
        "other/resolved.json is not a list of arms of this version: arms: this key is missing.",
    ),
    "environment of another version": (
        ("odd",),
        "odd/environment-e.json is not an environment of this version: Input should be a valid dictionary",
    ),
    "no such run": (("--compare", "a", "good.jsonl.gz"), "Cannot read a: No such file or directory."),
    "folder without a run": (
        ("--compare", "folder", "good.jsonl.gz"),
        "folder holds no run: give the folder of one run",
    ),
    "cut short": (
        ("--compare", "cut.parquet", "good.jsonl.gz"),
        "cut.parquet is not a Parquet file of timelines: ",
    ),
    "nothing in it": (
        ("--compare", "empty.jsonl.gz", "good.jsonl.gz"),
        "empty holds no request; nothing can be compared.",
    ),
    "other curve": (
        ("--compare", "other.jsonl.gz", "good.jsonl.gz"),
        "The runs were judged by different prefill curves (c, d)",
    ),
    "other deadlines": (
        ("--compare", "slow.jsonl.gz", "good.jsonl.gz"),
        "The runs were judged by different deadlines (class standard)",
    ),
    "no such metric": (
        ("--compare", "good.jsonl.gz", "good.jsonl.gz", "--metric", "speed"),
        "No metric 'speed': use one of",
    ),
}


@pytest.mark.parametrize(("arguments", "sentence"), REPORTS.values(), ids=REPORTS.keys())
def test_bad_reports_are_one_sentence(
    run: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], sentence: str
):
    for name in ("folder", "begun", "other", "odd"):
        (tmp_path / name).mkdir()
    for name in ("begun", "other", "odd"):
        (tmp_path / name / "experiment.json").write_text(experiment().model_dump_json())
    arms = resolve(experiment(), {})
    (tmp_path / "odd" / "resolved.json").write_text(json.dumps({"arms": [arm.facts() for arm in arms]}))
    (tmp_path / "odd" / "environment-e.json").write_text("5")
    store, unit = Store(tmp_path / "odd"), Unit("run", "chats", 2.0, 11, 0, "ours")
    with store.opened(experiment().model_dump(mode="json")):
        store.write(unit, {"figures": {}}, timelines=[timeline("r", 0, [100, 40])])
    (tmp_path / "other" / "resolved.json").write_text("{}")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "empty.jsonl.gz").write_bytes(gzip.compress(b""))
    write_timelines(tmp_path / "good.jsonl.gz", [timeline("r", 0, [100, 40])])
    write_timelines(tmp_path / "other.jsonl.gz", [timeline("r", 0, [100, 40], curve="d")])
    write_timelines(tmp_path / "slow.jsonl.gz", [timeline("r", 0, [100, 40], tbt_ns=1)])
    result = run("report", *arguments)
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    assert result.exit_code == 2
