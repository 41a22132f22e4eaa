"""The search over knobs: seeded, as many trials as asked, the arm as written among them."""

from __future__ import annotations

from typing import Any

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.evaluate.arms import with_knobs
from sarathi_plugin.evaluate.knobs import KNOBS, STOCK_KNOBS, Trial, Tuning, knobs_of, search
from sarathi_plugin.evaluate.spec import ArmSpec, Knob

SPACE = {
    "budget": Knob(choices=[128, 512, 2048]),
    "x": Knob(low=0.1, high=10, log=True),
    "n": Knob(low=1, high=9, whole=True),
}


def score(knobs: dict[str, Any]) -> float:
    """Best at 512 and x = 1."""
    if not knobs:
        return 0.3
    return (knobs["budget"] == 512) - abs(knobs["x"] - 1) / 10


def test_the_search_finds_what_is_good_and_is_repeatable():
    first = search(SPACE, score, trials=30, seed=3)
    assert first == search(SPACE, score, trials=30, seed=3)
    assert len(first) == 30
    assert first[0] == Trial({}, 0.3)
    best = Tuning("a", first, (0,), {}).best
    assert best.knobs["budget"] == 512
    assert 0.3 < best.knobs["x"] < 3
    assert isinstance(best.knobs["n"], int)


def test_the_arm_as_written_wins_when_nothing_is_better():
    trials = search(SPACE, lambda knobs: 1.0 if not knobs else 0.5, trials=5, seed=0)
    assert Tuning("a", trials, (0,), {}).best.knobs == {}


def test_what_vllm_refuses_is_a_trial_too():
    def refused(knobs: dict[str, Any]) -> float:
        if knobs and knobs["budget"] == 128:
            raise ConfigError("no")
        return score(knobs)

    trials = search(SPACE, refused, trials=20, seed=0)
    assert len(trials) == 20
    assert {trial.refused for trial in trials if trial.score is None} == {"no"}
    with pytest.raises(ConfigError, match="no configuration could run: no"):
        assert Tuning("a", (Trial({}, None, "no"),), (0,), {}).best


def test_tuning_survives_the_disk():
    tuning = Tuning("a", search(SPACE, score, trials=4, seed=0), (1, 2), {"budget": {"choices": [1]}})
    assert Tuning.of(tuning.facts()) == tuning


def test_knobs_go_where_they_belong():
    engine, own = with_knobs(
        {"max_num_seqs": 64},
        {"policy": {"a": 1}},
        {"max_num_batched_tokens": 32, "sarathi.slo": "gap", "sarathi.policy.b": 2},
    )
    assert engine == {"max_num_seqs": 32, "max_num_batched_tokens": 32}
    assert own == {"policy": {"a": 1, "b": 2}, "slo": "gap"}


def test_stock_is_tuned_over_what_a_person_could_set():
    assert set(STOCK_KNOBS) == {"max_num_batched_tokens", "max_num_seqs", "long_prefill_token_threshold"}
    assert knobs_of(ArmSpec(name="a", tune=True)) == STOCK_KNOBS
    assert set(KNOBS) >= {"stock", "vllm", "sarathi", "sarathi-static"}
