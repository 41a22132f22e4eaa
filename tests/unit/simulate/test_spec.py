"""What to simulate: memory worked out, defaults as vLLM's, and bad specs refused in one sentence."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from sarathi_plugin.config import ConfigError, explain
from sarathi_plugin.simulate.spec import EngineSpec, Speculation, default_batched_tokens, with_setting
from sarathi_plugin.simulate.variants import variants
from sarathi_plugin.steptime.profile import StepTimeProfile, read_profile


def machine(*, weight_bytes: int = 14_000_000_000, **changes: Any) -> StepTimeProfile:
    """A device of 80 GB and a model of 14 GB, unless told otherwise."""
    shipped = read_profile("h100-llama-2-7b")
    model = shipped.model.model_copy(update={"weight_bytes": weight_bytes})
    known = {"model": model, "memory_bytes": 80_000_000_000, "kv_cache_bytes": None, "tensor_parallel": 1}
    return shipped.model_copy(update=known | changes)


GB = 10**9
MEMORY = {
    "what weights and activations leave": (EngineSpec(), machine(), 72 * GB - 14 * GB - 2 * GB),
    "another share of the device": (
        EngineSpec(gpu_memory_utilization=0.5),
        machine(),
        40 * GB - 14 * GB - 2 * GB,
    ),
    "weights on two devices": (EngineSpec(), machine(tensor_parallel=2), 72 * GB - 7 * GB - 2 * GB),
    "weights on two by two devices": (
        EngineSpec(pipeline_parallel_size=2),
        machine(tensor_parallel=2),
        72 * GB - 3_500_000_000 - 2 * GB,
    ),
    "weights that do not divide": (
        EngineSpec(),
        machine(tensor_parallel=2, weight_bytes=7),
        72 * GB - 4 - 2 * GB,
    ),
    "as a run showed": (EngineSpec(), machine(kv_cache_bytes=123), 123),
    "as given": (EngineSpec(kv_cache_memory_bytes=77), machine(kv_cache_bytes=123), 77),
    "as given, though nothing fits": (
        EngineSpec(kv_cache_memory_bytes=77),
        machine(weight_bytes=99 * GB),
        77,
    ),
}


@pytest.mark.parametrize(("spec", "profile", "expected"), MEMORY.values(), ids=MEMORY.keys())
def test_kv_memory_of_each_device(spec: EngineSpec, profile: StepTimeProfile, expected: int):
    assert spec.kv_bytes(profile) == expected


def test_a_model_that_does_not_fit_is_refused_in_one_sentence():
    with pytest.raises(ConfigError) as caught:
        EngineSpec(pipeline_parallel_size=2).kv_bytes(machine(weight_bytes=300 * GB, tensor_parallel=2))
    assert str(caught.value) == (
        "meta-llama/Llama-2-7b-hf does not fit: 75.0 GB of weights on each of 4 devices with 80 GB; raise tensor or "
        "pipeline parallelism."
    )


def test_a_model_that_leaves_no_byte_does_not_fit():
    assert EngineSpec().kv_bytes(machine(weight_bytes=70 * GB - 1)) == 1
    with pytest.raises(ConfigError, match="does not fit"):
        EngineSpec().kv_bytes(machine(weight_bytes=70 * GB))


@pytest.mark.parametrize(
    ("hardware", "memory_bytes", "tokens"),
    [
        ("NVIDIA H100 80GB", 80 * GB, 8192),
        ("NVIDIA H200", 141 * GB, 8192),
        ("NVIDIA A100 80GB", 80 * GB, 2048),
        ("a100-sxm", 80 * GB, 2048),
        ("NVIDIA L4", 24 * GB, 2048),
        ("other", 70 * 2**30, 8192),
        ("other", 70 * 2**30 - 1, 2048),
    ],
)
def test_the_default_budget_is_that_of_vllm_for_the_hardware(hardware: str, memory_bytes: int, tokens: int):
    assert default_batched_tokens(machine(hardware=hardware, memory_bytes=memory_bytes)) == tokens


def test_the_model_length_is_the_models_unless_given():
    assert EngineSpec().model_length(machine()) == 4096
    assert EngineSpec(max_model_len=100).model_length(machine()) == 100


def test_settings_of_the_plugin_are_checked_as_those_of_a_server():
    spec = EngineSpec(scheduler="sarathi-static", sarathi={"token_budget": 256, "tbt_ms": 25})
    settings = spec.settings()
    assert (settings.scheduler, settings.token_budget, settings.tbt_ms) == ("sarathi-static", 256, 25)
    with pytest.raises(
        ConfigError, match=r"^sarathi settings: budget: this key is not known; the nearest is token_budget\.$"
    ):
        EngineSpec(sarathi={"budget": 3}).settings()


def test_the_stock_scheduler_has_no_settings():
    with pytest.raises(ConfigError) as caught:
        EngineSpec(scheduler="stock").settings()
    assert str(caught.value) == "The stock scheduler has no settings of ours."


BAD = {
    "unknown key": ({"max_seqs": 3}, "max_seqs: this key is not known; the nearest is max_num_seqs."),
    "unknown key of speculation": (
        {"speculation": {"tokens": 2, "acceptance": 0.5, "method": "eagle"}},
        "speculation.method: this key is not known; use one of acceptance, draft_s, tokens.",
    ),
    "stock with settings": (
        {"scheduler": "stock", "sarathi": {"tbt_ms": 5}},
        "the stock scheduler takes no settings of ours; use 'vllm' for stock decisions.",
    ),
    "scheduler among the settings": (
        {"sarathi": {"scheduler": "orca"}},
        "sarathi: leave out 'scheduler'; the scheduler is named one level up.",
    ),
    "file among the settings": (
        {"sarathi": {"file": "a.yaml"}},
        "sarathi: leave out 'file'; the scheduler is named one level up.",
    ),
    "no budget": (
        {"max_num_batched_tokens": 0},
        "max_num_batched_tokens: Input should be greater than 0, got 0.",
    ),
    "no requests": ({"max_num_seqs": 0}, "max_num_seqs: Input should be greater than 0, got 0."),
    "no length": ({"max_model_len": -1}, "max_model_len: Input should be greater than 0, got -1."),
    "no blocks": ({"block_size": 0}, "block_size: Input should be greater than 0, got 0."),
    "no memory": (
        {"gpu_memory_utilization": 0},
        "gpu_memory_utilization: Input should be greater than 0, got 0.",
    ),
    "more than all memory": (
        {"gpu_memory_utilization": 1.1},
        "gpu_memory_utilization: Input should be less than or equal to 1, got 1.1.",
    ),
    "no stage": (
        {"pipeline_parallel_size": 0},
        "pipeline_parallel_size: Input should be greater than or equal to 1, got 0.",
    ),
    "one block, which vLLM keeps for itself": (
        {"num_gpu_blocks_override": 1},
        "num_gpu_blocks_override: Input should be greater than 1, got 1.",
    ),
    "a budget of 20 digits": (
        {"max_num_batched_tokens": 10**19},
        "max_num_batched_tokens: Input should be less than or equal to 2147483647, got 10000000000000000000.",
    ),
    "a length of 20 digits": (
        {"max_model_len": 10**19},
        "max_model_len: Input should be less than or equal to 2147483647, got 10000000000000000000.",
    ),
    "memory beyond all": (
        {"kv_cache_memory_bytes": 10**30},
        "kv_cache_memory_bytes: Input should be less than or equal to 1152921504606846976, "
        "got 1000000000000000000000000000000.",
    ),
    "drafts that take for ever": (
        {"speculation": {"tokens": 2, "acceptance": 0.5, "draft_s": 1e300}},
        "speculation.draft_s: Input should be less than or equal to 3600, got 1e+300.",
    ),
    "unknown order": (
        {"scheduling_policy": "lifo"},
        "scheduling_policy: Input should be 'fcfs' or 'priority', got 'lifo'.",
    ),
    "chance above one": (
        {"speculation": {"tokens": 2, "acceptance": 1.5}},
        "speculation.acceptance: Input should be less than or equal to 1, got 1.5.",
    ),
    "nothing drafted": (
        {"speculation": {"tokens": 0, "acceptance": 0.5}},
        "speculation.tokens: Input should be greater than or equal to 1, got 0.",
    ),
    "several problems": ({"block_size": 0, "max_num_seqs": 0}, "(1 more problem)."),
}


@pytest.mark.parametrize(("data", "complaint"), BAD.values(), ids=BAD.keys())
def test_a_bad_spec_is_refused_in_one_sentence(data: dict[str, Any], complaint: str):
    with pytest.raises(ValidationError) as caught:
        EngineSpec.model_validate(data)
    sentence = explain(caught.value, "engine", EngineSpec)
    assert sentence.startswith("engine: ")
    assert sentence.endswith(complaint)
    assert "\n" not in sentence


def test_drafts_cost_nothing_unless_told():
    assert Speculation(tokens=3, acceptance=0.7).draft_s == 0


def test_one_setting_is_set_at_any_depth_and_what_it_stands_on_stays():
    base = {"scheduler": "sarathi", "sarathi": {"tbt_ms": 50, "policy": {"tiles": False}}}
    deeper = with_setting(base, "sarathi.policy.look_ahead", 0.2)
    assert deeper["sarathi"] == {"tbt_ms": 50, "policy": {"tiles": False, "look_ahead": 0.2}}
    assert with_setting(base, "sarathi.slo", "gap")["sarathi"] == {**base["sarathi"], "slo": "gap"}
    assert with_setting({}, "sarathi.policy.cap", 256) == {"sarathi": {"policy": {"cap": 256}}}
    assert with_setting(base, "max_num_seqs", 8) == {**base, "max_num_seqs": 8}
    assert base == {"scheduler": "sarathi", "sarathi": {"tbt_ms": 50, "policy": {"tiles": False}}}


@pytest.mark.parametrize(
    "path",
    [
        "policy.tiles",
        "sarathi.",
        "sarathi.policy.",
        "sarathi.classes.batch.tbt_ms",
        "sarathi.slo.gap",
        ".slo",
    ],
)
def test_a_path_to_nothing_is_refused(path: str):
    with pytest.raises(ConfigError, match=re.escape(f"No setting {path!r}; write KEY")):
        with_setting({}, path, 1)


def test_settings_that_are_none_are_refused_and_missing_ones_are_no_hindrance():
    assert with_setting({"sarathi": None}, "sarathi.slo", "gap") == {"sarathi": {"slo": "gap"}}
    with pytest.raises(ConfigError, match=re.escape("sarathi holds settings (KEY: VALUE), not 'gap'.")):
        with_setting({"sarathi": "gap"}, "sarathi.slo", "gap")


def test_a_sweep_reads_numbers_as_a_file_does():
    found = variants({"scheduler": "sarathi"}, ["sarathi.tbt_ms=1e2,5E-1,.25"], "engine")
    assert [engine.settings().tbt_ms for _, engine in found] == [100, 0.5, 0.25]
