"""What a profile's machine can promise, on profiles whose answer is known by hand."""

from __future__ import annotations

from typing import Any

import pytest

from sarathi_plugin.config import CURVES, CurveFile, load_curve
from sarathi_plugin.simulate.targets import prefill_curve, reference_decode_ns
from sarathi_plugin.steptime.profile import StepTimeProfile, read_profile, shipped_profiles

MACHINE: dict[str, Any] = {
    "linear_s": [(1, 1e-5), (4096, 4096e-5)],  # 10 us a token
    "decode_step_s": 0.0,
    "decode_context_token_s": 0.0,
    "prefill_step_s": 0.0,
    "prefill_token_s": 0.0,
    "prefill_pair_s": 0.0,
    "host_s": 0.0,
    "host_request_s": 0.0,
    "frontend_s": 0.0,
}


def machine(*, max_model_len: int = 4096, **terms: float) -> StepTimeProfile:
    """A profile that takes 10 us a token and whatever else is given."""
    shipped = read_profile("h100-llama-2-7b")
    model = shipped.model.model_copy(update={"max_model_len": max_model_len})
    return shipped.model_copy(update=MACHINE | {"model": model} | terms)


def test_the_curve_of_a_known_machine_is_right():
    curve = prefill_curve(machine(frontend_s=0.01, prefill_token_s=2e-5, prefill_pair_s=1e-8))
    # In any chunks, a prompt of n tokens has n^2 / 2 query-key pairs.
    assert curve.c0_s == pytest.approx(0.01, rel=1e-3)
    assert curve.c1_s_per_token == pytest.approx(3e-5, rel=1e-3)
    assert curve.c2_s_per_token2 == pytest.approx(0.5e-8, rel=1e-3)


@pytest.mark.parametrize(("tokens", "steps"), [(32, 1), (2048, 1), (4096, 2), (16_384, 8)])
def test_every_chunk_of_2048_tokens_pays_for_its_step_and_its_host_time(tokens: int, steps: int):
    curve = prefill_curve(machine(frontend_s=0.5, prefill_step_s=0.002, host_s=0.003))
    assert dict(curve.points)[tokens] == pytest.approx(0.5 + steps * 0.005 + tokens * 1e-5, abs=1e-6)


@pytest.mark.parametrize(("model_len", "longest"), [(2048, 16_384), (16_384, 16_384), (40_000, 40_000)])
def test_the_curve_reaches_as_far_as_the_model(model_len: int, longest: int):
    lengths = [tokens for tokens, _ in prefill_curve(machine(max_model_len=model_len, host_s=0.01)).points]
    assert (lengths[0], lengths[-1]) == (32, longest)


def test_the_curve_says_where_it_comes_from():
    profile = machine(host_s=0.01)
    curve = prefill_curve(profile)
    assert curve.model == profile.model.name
    assert curve.hardware == profile.hardware
    assert profile.name in curve.method


def test_decodes_do_not_count_for_the_curve():
    plain = machine(host_s=0.01)
    with_decodes = machine(host_s=0.01, decode_step_s=5.0, decode_context_token_s=1.0)
    assert prefill_curve(plain).points == prefill_curve(with_decodes).points


def test_the_reference_step_is_32_decodes_at_4096_tokens():
    assert reference_decode_ns(machine()) == pytest.approx(320_000, abs=1)
    everything = machine(
        decode_step_s=0.002,
        decode_context_token_s=1e-8,
        prefill_step_s=9.0,
        host_s=0.003,
        host_request_s=0.0001,
        frontend_s=9.0,
    )
    expected = 320_000 + 2_000_000 + 32 * 4096 * 10 + 3_000_000 + 3_200_000
    assert reference_decode_ns(everything) == pytest.approx(expected, abs=2)


@pytest.mark.parametrize("name", shipped_profiles())
def test_a_shipped_curve_is_that_of_its_profile(name: str):
    shipped = CurveFile.model_validate_json((CURVES / f"{name}.json").read_bytes())
    assert shipped == prefill_curve(read_profile(name)), "make generate"
    assert load_curve(name).digest == prefill_curve(read_profile(name)).build().digest
