"""Search files: what they mean, and the sentences that refuse bad ones."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.search.space import (
    Space,
    applicable,
    engine_data,
    every,
    key_of,
    read_search,
    takes,
    with_changes,
)

A100 = "a100-llama-3-8b-tp1"
GOOD = """
workload: sharegpt-like
space:
  profile: [a100-llama-3-8b-tp1]
  scheduler: [stock, sarathi-static, sarathi]
  max_num_batched_tokens: [512, 2048]
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "space.yaml"
    path.write_text(textwrap.dedent(text))
    return str(path)


def test_a_good_file_is_read(tmp_path: Path):
    wanted = read_search(written(tmp_path, GOOD))
    assert wanted.criterion.name == "fluid"
    assert wanted.rate is None
    assert len(list(every(wanted.space))) == 6
    assert with_changes(wanted, trials=7, rate=3.5, minutes=None).trials == 7
    assert with_changes(wanted, rate=3.5).rate == 3.5


BAD = {
    "unknown key": (GOOD + "budget: 3\n", "budget: this key is not known"),
    "unknown dimension": (GOOD + "  tokens: [1]\n", "space.tokens: this key is not known"),
    "no profile": ("workload: sharegpt-like\nspace: {}\n", "space.profile: this key is missing."),
    "unknown profile": (GOOD.replace("-tp1", "-tp9"), "No step-time profile 'a100-llama-3-8b-tp9'"),
    "unknown workload": (GOOD.replace("sharegpt-like", "chat"), "No workload 'chat'"),
    "unknown scheduler": (GOOD.replace("stock", "fifo"), "unknown scheduler 'fifo'; known: stock, alternate"),
    "unknown metric": (GOOD + "criterion: {name: smooth}\n", "criterion: "),
    "negative rate": (GOOD + "rate: -1\n", "rate: Input should be greater than 0, got -1."),
    "two rates": (
        GOOD.replace("workload: sharegpt-like", "workload: {kind: sharegpt-like, rate: 2}") + "rate: 3\n",
        "the workload says rate 2 and the search 3; keep one of them.",
    ),
    "kind and trace": (
        GOOD.replace("workload: sharegpt-like", "workload: {kind: sharegpt-like, trace: a.csv}"),
        "give either kind or trace",
    ),
    "setting nobody takes": (
        GOOD + "  sarathi: {policy.cap: [1]}\n",
        "none of the schedulers takes the setting ",
    ),
    "value nobody gave": (GOOD + "  sarathi: {slo: []}\n", "space: sarathi.slo needs at least one value."),
    "price for another": (GOOD + "prices: {h100: 4}\n", f"prices: none fits the profile '{A100}'"),
    "price of nothing": (GOOD + "prices: {a100: 0}\n", "prices must be above zero."),
    "no replica": (GOOD + "  replicas: [0]\n", "space: replicas must hold numbers above zero."),
    "said twice": (GOOD + "engine: {max_num_seqs: 4}\n", "max_num_seqs is under engine and under space"),
    "not a mapping": ("- a\n", "must hold a mapping of settings"),
    "not YAML": ("space: [", "not valid YAML"),
}


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_search(path)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


def test_a_flag_that_contradicts_the_file_is_refused(tmp_path: Path):
    wanted = read_search(
        written(tmp_path, GOOD.replace("workload: sharegpt-like", "workload: {kind: sharegpt-like, rate: 2}"))
    )
    with pytest.raises(ConfigError, match="the workload says rate 2 and the search 5"):
        with_changes(wanted, rate=5.0)
    with pytest.raises(ConfigError, match="minutes"):
        with_changes(wanted, minutes=-1.0)


def test_the_longest_name_of_a_price_wins(tmp_path: Path):
    wanted = read_search(written(tmp_path, GOOD + f"prices: {{a100: 2, {A100}: 3}}\n"))
    assert wanted.price_of(A100) == 3
    assert read_search(written(tmp_path, GOOD)).price_of(A100) is None


def config(**changes: Any) -> dict[str, Any]:
    return {"profile": A100, "scheduler": "sarathi", "max_num_batched_tokens": 512, "replicas": 1, **changes}


def test_what_a_scheduler_does_not_take_is_left_out():
    settings = {"sarathi.slo": "gap", "sarathi.tbt_ms": 40, "sarathi.policy.look_ahead": 0.5}
    assert applicable(config(**settings)) == config(**settings)
    assert applicable(config(**settings, scheduler="stock")) == config(scheduler="stock")
    static = applicable(config(**settings, scheduler="sarathi-static"))
    assert static == config(scheduler="sarathi-static", **{"sarathi.tbt_ms": 40})
    whole = applicable(config(scheduler="orca"))
    assert "max_num_batched_tokens" not in whole
    assert takes("sarathi", "slo")
    assert not takes("sarathi-static", "slo")


def test_configurations_that_differ_in_nothing_are_one():
    space = Space(
        profile=[A100],
        scheduler=["stock", "sarathi"],
        sarathi={"slo": ["deadline", "gap"]},
        max_num_seqs=[64, 128],
    )
    found = list(every(space))
    assert len(found) == 2 + 4
    assert len({key_of(one) for one in found}) == 6


def test_a_configuration_as_engine_arguments():
    common = {"enable_prefix_caching": False, "sarathi": {"policy": {"tiles": False}}}
    ours = engine_data(
        config(**{"sarathi.slo": "gap", "sarathi.policy.order": "arrival", "kv_cache_gb": 20.5}), common
    )
    assert ours == {
        "enable_prefix_caching": False,
        "scheduler": "sarathi",
        "max_num_batched_tokens": 512,
        "kv_cache_memory_bytes": 20_500_000_000,
        "sarathi": {"slo": "gap", "policy": {"tiles": False, "order": "arrival"}},
    }
    assert common["sarathi"] == {"policy": {"tiles": False}}  # shared by all: nobody may write into it
    static = engine_data(config(scheduler="sarathi-static"), {})
    assert static["sarathi"] == {"token_budget": 512}
    assert "sarathi" not in engine_data(config(scheduler="stock"), common)
