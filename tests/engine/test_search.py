"""Capacity and configuration search on a small simulated machine; the winner is a command that vLLM takes."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

from sarathi_plugin import cli
from sarathi_plugin.config import ConfigError
from sarathi_plugin.engine.entry import settings_of
from sarathi_plugin.engine.register import register
from sarathi_plugin.policies.stock import Stock
from sarathi_plugin.search import search_command
from sarathi_plugin.search.criteria import make_criterion
from sarathi_plugin.search.deployment import Deployment
from sarathi_plugin.search.pareto import value_of
from sarathi_plugin.search.promise import Promise
from sarathi_plugin.search.search_command import Options, command
from sarathi_plugin.search.serve_line import serve_arguments, serve_line, settings_text
from sarathi_plugin.search.space import SearchFile, key_of, read_search
from sarathi_plugin.search.study import Study, run_all
from sarathi_plugin.search.trial import Trial, run_trial
from sarathi_plugin.simulate.spec import EngineSpec
from sarathi_plugin.steptime.profile import save_profile
from tests.engine.simulations import NOISE, make_profile

pytestmark = pytest.mark.vllm


@pytest.fixture
def machine(tmp_path: Path) -> str:
    """A profile that comes without a prefill curve."""
    path = tmp_path / "tiny.json"
    save_profile(make_profile(noise=NOISE), path)
    return str(path)


WORKLOAD = "{kind: sharegpt-like, prompt_scale: 0.2, output_scale: 0.1}"


def search_file(tmp_path: Path, machine: str, more: str = "") -> SearchFile:
    path = tmp_path / "space.yaml"
    path.write_text(
        f"workload: {WORKLOAD}\nrequests: 30\nminutes: 1\nrepeats: 2\nfinals: 2\n"
        f"promise: {{tbt_ms: 50, ttft_slack_ms: 300}}\n{more}\n"
        "engine: {num_gpu_blocks_override: 2000}\n"
        f"space:\n  profile: ['{machine}']\n  scheduler: [stock, sarathi]\n  max_num_batched_tokens: [256, 1024]\n"
        "  max_num_seqs: [2, 64]\n"
    )
    return read_search(str(path))


def run_command(wanted: SearchFile, tmp_path: Path) -> tuple[dict[str, Any], str]:
    written: list[str] = []
    command(wanted, Options(out=tmp_path / "out", workers=1), say=lambda _: None, write=written.append)
    return json.loads((tmp_path / "out" / "search.json").read_text()), written[0]


def parsed(line: str) -> Any:
    register()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        words = shlex.split(line)
        assert words[:2] == ["vllm", "serve"]
        return make_arg_parser(FlexibleArgumentParser()).parse_args(words[2:])


def test_a_search_finds_the_best_and_says_how_to_serve_it(tmp_path: Path, machine: str):
    report, text = run_command(search_file(tmp_path, machine), tmp_path)
    assert report["tried"] == 8
    winner = report["winner"]
    capacities = {key_of(row["config"]): row["capacity"] or 0.0 for row in report["rows"]}
    assert capacities[key_of(winner["config"])] >= 0.8 * max(capacities.values())
    assert winner["config"]["max_num_seqs"] == 64  # two places are far too few
    arguments = parsed(winner["serve"])
    assert arguments.max_num_seqs == 64
    assert arguments.model_tag == "tiny" or arguments.model == "tiny"
    assert winner["serve"] in text
    assert "Nobody better in cost, fluidity and TTFT at once" in text
    assert len(winner["capacities"]) == 2
    picture = tmp_path / "out" / "pareto.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_at_a_load_the_cheapest_that_carries_it_wins(tmp_path: Path, machine: str):
    wanted = search_file(tmp_path, machine, "rate: 6\nprices: {tiny: 2.5}")
    data = wanted.model_dump(by_alias=True, exclude_unset=True)
    data["space"] |= {
        "max_num_seqs": [8],
        "max_num_batched_tokens": [1024],
        "scheduler": ["stock"],
        "replicas": [1, 2, 4],
    }
    wanted = SearchFile.model_validate(data)
    report, text = run_command(wanted, tmp_path)
    rows = {row["config"]["replicas"]: row for row in report["rows"]}
    assert [rows[n]["cost_per_hour"] for n in (1, 2, 4)] == [2.5, 5, 10]
    passing = [n for n, row in rows.items() if row["passed"]]
    assert report["winner"]["config"]["replicas"] == min(passing)
    assert rows[4]["passed"]
    assert "cost per hour" in text
    tokens, rate = rows[4]["tokens_per_request"], 6
    assert rows[4]["per_million_tokens"] == pytest.approx(10 / (rate * 3600 * tokens) * 1e6)


def test_the_sampler_finds_a_good_one_without_trying_all(tmp_path: Path, machine: str):
    wanted = search_file(tmp_path, machine)
    data = wanted.model_dump(by_alias=True, exclude_unset=True) | {"trials": 30}
    data["space"] |= {
        "max_num_seqs": [1, 2, 4, 8, 16, 32, 64, 128],
        "max_num_batched_tokens": [64, 128, 256, 512, 1024, 2048],
    }
    wanted = SearchFile.model_validate(data)

    def evaluate(trials):
        """Made-up capacities: best at 512 tokens and 32 sequences, sarathi a little better."""
        for trial in trials:
            config = trial.config
            seqs, tokens = config["max_num_seqs"], config["max_num_batched_tokens"]
            capacity = 10 / (1 + abs(seqs - 32) / 32) / (1 + abs(tokens - 512) / 512)
            capacity *= 1.05 if config["scheduler"] == "sarathi" else 1.0
            yield (
                trial,
                {"load": None, "hopeless": False, "capacity": capacity, "cost_per_hour": 1.0, "reason": ""},
            )

    rows = Study(wanted, batch=4, evaluate=evaluate, say=lambda _: None).run()
    assert len(rows) == 30
    assert max(value_of(row) for row in rows) >= 0.8 * 10.5
    again = Study(wanted, batch=4, evaluate=evaluate, say=lambda _: None).run()
    assert again == rows  # same seed, same search


def test_time_that_is_up_ends_a_search(tmp_path: Path, machine: str):
    wanted = search_file(tmp_path, machine)
    clock = iter([0.0, 1.0, 61.0])

    def evaluate(trials):
        for trial in trials:
            yield trial, {"load": None, "hopeless": True, "capacity": None, "reason": "", "figures": {}}

    rows = Study(wanted, batch=2, evaluate=evaluate, say=lambda _: None, now=lambda: next(clock)).run()
    assert len(rows) == 2


def test_a_trial_below_the_hurdle_is_one_short_run(tmp_path: Path, machine: str):
    wanted = search_file(tmp_path, machine)
    config = {
        "profile": machine, "scheduler": "stock", "max_num_batched_tokens": 256, "max_num_seqs": 64,
        "kv_cache_gb": None,
        "pipeline_parallel_size": 1, "long_prefill_token_threshold": 0, "replicas": 1,
    }  # fmt: skip
    free = run_trial(Trial(config=config, wanted=wanted))
    assert free["capacity"] > 0
    lost = run_trial(Trial(config=config, wanted=wanted, hurdle=3 * free["capacity"]))
    assert lost["hopeless"]
    assert lost["below"] == 3 * free["capacity"]
    passed = run_trial(Trial(config=config, wanted=wanted, hurdle=0.5 * free["capacity"]))
    assert passed["capacity"] == pytest.approx(free["capacity"], rel=0.2)
    same = dict(run_trial(Trial(config=config, wanted=wanted)))
    assert {k: v for k, v in same.items() if k != "cpu_s"} == {k: v for k, v in free.items() if k != "cpu_s"}
    small = wanted.model_copy(update={"engine": {}})
    cramped = run_trial(Trial(config={**config, "kv_cache_gb": 0.0001}, wanted=small))
    assert cramped["hopeless"]
    assert "KV memory" in cramped["reason"]


def test_a_load_that_is_carried_is_not_hopeless_because_few_are_fluid(tmp_path: Path, machine: str):
    """What passes is up to the criterion of the search, and P99 TBT may pass where first tokens are late."""
    tight = search_file(tmp_path, machine, "criterion: {name: sarathi, tbt_s: 10, delay_s: 3600}").model_copy(
        update={"rate": 5.0, "promise": Promise(tbt_ms=1, ttft_slack_ms=0)}
    )
    config = {
        "profile": machine, "scheduler": "stock", "max_num_batched_tokens": 256, "max_num_seqs": 64,
        "kv_cache_gb": None, "pipeline_parallel_size": 1, "long_prefill_token_threshold": 0, "replicas": 1,
    }  # fmt: skip
    row = run_trial(Trial(config=config, wanted=tight))
    assert (row["hopeless"], row["passed"]) == (False, True)
    assert row["figures"]["fluid_share"] < 0.5
    neither = tight.model_copy(update={"criterion": make_criterion("sarathi", ["tbt_s=0.0001"])})
    row = run_trial(Trial(config=config, wanted=neither))
    assert (row["hopeless"], row["passed"]) == (True, False)
    assert row["reason"].startswith("P99 TBT more than 0.0001")


def test_trials_over_processes_are_those_of_one(tmp_path: Path, machine: str):
    wanted = search_file(tmp_path, machine)
    base = {
        "profile": machine, "scheduler": "sarathi", "max_num_batched_tokens": 1024, "kv_cache_gb": None,
        "pipeline_parallel_size": 1, "long_prefill_token_threshold": 0, "replicas": 1,
    }  # fmt: skip
    trials = [Trial(config={**base, "max_num_seqs": n}, wanted=wanted) for n in (2, 16)]

    def capacities(workers: int) -> dict[int, float]:
        found = run_all(trials, workers=workers, ray_address=None)
        return {trial.config["max_num_seqs"]: row["capacity"] for trial, row in found}

    assert capacities(2) == capacities(1)


def test_without_ray_a_cluster_address_is_refused(tmp_path: Path, machine: str):
    trial = Trial(config={}, wanted=search_file(tmp_path, machine))
    with pytest.raises(ConfigError, match="Ray is not installed"):
        list(run_all([trial], workers=None, ray_address="auto"))


PROMISE = Promise(tbt_ms=40, ttft_slack_ms=250)
LINES = {
    "stock": (EngineSpec(scheduler="stock", max_num_batched_tokens=512), {"max_num_batched_tokens": 512}),
    "ours": (
        EngineSpec(
            scheduler="sarathi",
            sarathi={"slo": "gap", "policy": {"order": "arrival"}},
            async_scheduling=False,
        ),
        {"async_scheduling": False},
    ),
    "static": (
        EngineSpec(
            scheduler="sarathi-static",
            sarathi={"token_budget": 256},
            max_num_batched_tokens=256,
            block_size=32,
        ),
        {"block_size": 32},
    ),
    "parallel": (
        EngineSpec(
            scheduler="niyama",
            pipeline_parallel_size=2,
            kv_cache_memory_bytes=10**10,
            enable_prefix_caching=False,
        ),
        {"pipeline_parallel_size": 2, "kv_cache_memory_bytes": 10**10, "enable_prefix_caching": False},
    ),
}


@pytest.mark.parametrize(("engine", "expected"), LINES.values(), ids=LINES.keys())
def test_a_line_is_taken_by_vllm_and_says_the_same(
    tmp_path: Path, engine: EngineSpec, expected: dict[str, Any]
):
    deployment = Deployment(profile="a100-llama-3-8b-tp2", engine=engine, promise=PROMISE)
    file = tmp_path / "winner.yaml"
    words, settings = serve_arguments(deployment, file)
    file.write_text(settings_text(settings))
    found = parsed(serve_line("some/model", words))
    assert found.tensor_parallel_size == 2
    assert found.max_num_seqs == 256
    for name, value in expected.items():
        assert getattr(found, name) == value
    if engine.scheduler != "stock":
        served = settings_of(found.scheduler_cls)
        simulated = deployment.full_engine().settings()
        assert served is not None
        assert served.model_copy(update={"session": ""}) == simulated
        assert served.tbt_ms == 40


def capacity(folder: Path, *arguments: str) -> dict[str, Any]:
    engine = folder / "engine.yaml"
    engine.write_text("num_gpu_blocks_override: 2000\nmax_num_seqs: 4\n")  # slow, so that little is simulated
    words = ["capacity", *arguments, "--json", "--workers", "1", "--engine", str(engine)]
    result = CliRunner().invoke(cli.app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_capacity_by_several_criteria(tmp_path: Path, machine: str):
    workload = tmp_path / "workload.yaml"
    workload.write_text("kind: sharegpt-like\nprompt_scale: 0.2\noutput_scale: 0.1\n")
    common = (
        machine, "--workload", str(workload), "--requests", "30", "--repeats", "2", "--tbt-ms", "50",
        "--resolution", "0.2",
    )  # fmt: skip
    fluid = capacity(tmp_path, *common, "--scheduler", "stock,sarathi")
    labels = [result["label"] for result in fluid["results"]]
    assert labels == ["stock", "sarathi"]
    for result in fluid["results"]:
        assert result["requests_per_s"] > 0
        low, high = result["interval_95"]
        assert low <= result["requests_per_s"] <= high
        assert result["limits"][0]["what"].startswith(("standard: ", "median delay"))
        assert result["figures_at_capacity"]["fluid_share"] >= 0.99
        assert result["figures_at_capacity"]["fluid_token_rate"] > 0
    strict = capacity(
        tmp_path, *common, "--scheduler", "stock", "--criterion", "sarathi", "--limit", "tbt_s=0.03"
    )
    loose = capacity(
        tmp_path, *common, "--scheduler", "stock", "--criterion", "sarathi", "--limit", "tbt_s=0.3"
    )
    assert strict["results"][0]["requests_per_s"] < loose["results"][0]["requests_per_s"]
    assert strict["results"][0]["limits"][0]["what"] == "P99 TBT"


def test_replicas_for_a_load(tmp_path: Path, machine: str):
    workload = tmp_path / "workload.yaml"
    workload.write_text("kind: sharegpt-like\nprompt_scale: 0.2\noutput_scale: 0.1\n")
    one = capacity(
        tmp_path, machine, "--workload", str(workload), "--requests", "60", "--repeats", "1", "--scheduler", "stock",
        "--tbt-ms", "50",
    )  # fmt: skip
    rate = one["results"][0]["requests_per_s"]
    found = capacity(
        tmp_path, machine, "--workload", str(workload), "--repeats", "1", "--scheduler", "stock", "--tbt-ms", "50",
        "--replicas-for", str(2.2 * rate),
    )  # fmt: skip
    assert found["results"][0]["replicas_needed"] in (2, 3, 4)
    assert found["results"][0]["reason"]


def test_a_policy_that_fails_has_no_capacity(tmp_path: Path, machine: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Stock, "plan", lambda _self, _view: 1 / 0)
    workload = tmp_path / "workload.yaml"
    workload.write_text("kind: sharegpt-like\nprompt_scale: 0.2\noutput_scale: 0.1\n")
    words = ["capacity", machine, "--workload", str(workload), "--scheduler", "vllm", "--requests", "10"]
    result = CliRunner().invoke(cli.app, [*words, "--workers", "1"])
    assert "The policy 'vllm' failed at 3 of " in result.stderr
    assert result.stderr.endswith(
        " steps (ZeroDivisionError: division by zero); nothing of such a run is the policy's.\n"
    )
    assert result.exit_code == 2
    assert result.stdout == ""
    config = {
        "profile": machine, "scheduler": "vllm", "max_num_batched_tokens": 256, "max_num_seqs": 64,
        "kv_cache_gb": None, "pipeline_parallel_size": 1, "long_prefill_token_threshold": 0, "replicas": 1,
    }  # fmt: skip
    row = run_trial(Trial(config=config, wanted=search_file(tmp_path, machine)))
    assert row["hopeless"]
    assert row["reason"].startswith("The policy 'vllm' failed at 3 of ")


FAILED = r"failed at 3 of \d+ steps \(ZeroDivisionError: division by zero\); nothing of such a run is the policy's\."


@pytest.mark.parametrize("asked", [(), ("--replicas-for", "1")], ids=["capacity", "replicas"])
def test_a_policy_that_fails_takes_nothing_from_the_others(
    tmp_path: Path, machine: str, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
):
    monkeypatch.setattr(Stock, "plan", lambda _self, _view: 1 / 0)
    workload, out = tmp_path / "workload.yaml", tmp_path / "answer.json"
    workload.write_text("kind: sharegpt-like\nprompt_scale: 0.2\noutput_scale: 0.1\n")
    words = [
        "capacity", machine, "--workload", str(workload), "--scheduler", "vllm,stock", "--requests", "10", "--repeats",
        "2", "--resolution", "0.5", "--workers", "1", "--out", str(out), *asked,
    ]  # fmt: skip
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 2
    assert result.stdout.startswith("stock: ")
    assert "vllm: " not in result.stdout
    assert re.fullmatch(f"vllm: The policy 'vllm' {FAILED}", result.stderr.splitlines()[-1])
    kept = json.loads(out.read_text())
    assert [one["label"] for one in kept["results"]] == ["stock"]
    ((name, reason),) = (one.values() for one in kept["failed"])
    assert name == "vllm"
    assert re.fullmatch(f"The policy 'vllm' {FAILED}", reason)


def test_an_answer_that_cannot_be_kept_is_still_told(
    tmp_path: Path, machine: str, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(search_command, "draw", full)
    wanted = search_file(tmp_path, machine)
    data = wanted.model_dump(by_alias=True, exclude_unset=True)
    data["space"] |= {"max_num_seqs": [64], "max_num_batched_tokens": [1024], "scheduler": ["stock"]}
    written: list[str] = []
    with pytest.raises(
        ConfigError, match=r"Cannot write .*/out: No space left on device; choose another --out\."
    ):
        command(
            SearchFile.model_validate(data),
            Options(out=tmp_path / "out", workers=1),
            say=lambda _: None,
            write=written.append,
        )
    assert "1 configurations in " in written[0]
