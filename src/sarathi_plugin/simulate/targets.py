"""What a profile's machine can promise: its prefill curve, and deadlines as multiples of its decode step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.config import CurveFile
from sarathi_plugin.core import NS_PER_S, StepShape
from sarathi_plugin.load.curve import curve_lengths, fit_curve
from sarathi_plugin.steptime.machine import ProfileModel

if TYPE_CHECKING:
    from sarathi_plugin.steptime.profile import StepTimeProfile

CURVE_CHUNK = 2048
"""Tokens a step of the curve's lone prompt: vLLM's default budget on most machines."""

REFERENCE_BATCH, REFERENCE_CONTEXT = 32, 4096
"""The decode step that deadlines are multiples of (Sarathi-Serve, arXiv 2403.02310, section 5)."""


def prefill_curve(profile: StepTimeProfile) -> CurveFile:
    """D_p without slack: a lone prompt on this machine, in chunks of 2,048 tokens, fitted as a measured one is."""
    model = ProfileModel(profile)
    points = []
    for tokens in curve_lengths(max(16_384, profile.model.max_model_len)):
        total = 0.0
        for start in range(0, tokens, CURVE_CHUNK):
            chunk = min(CURVE_CHUNK, tokens - start)
            shape = StepShape(0, 0, 0, chunk, chunk * (start + chunk / 2))
            total += model.predict_ns(shape) / NS_PER_S + profile.host_s
        points.append((tokens, round(total + profile.frontend_s, 6)))
    # Rounded: the last digits of a least-squares fit depend on the processor, and a curve is known by its hash.
    c0, c1, c2 = (float(f"{value:.9g}") for value in fit_curve(points))
    return CurveFile(
        c0_s=c0,
        c1_s_per_token=c1,
        c2_s_per_token2=c2,
        model=profile.model.name,
        hardware=profile.hardware,
        method=f"computed from the step-time profile {profile.name}: a lone prompt in chunks of {CURVE_CHUNK} tokens",
        points=points,
    )


def reference_decode_ns(profile: StepTimeProfile) -> int:
    """Duration of a step of 32 decodes at 4k context with no prompt beside them, host time included."""
    shape = StepShape(REFERENCE_BATCH, REFERENCE_BATCH, REFERENCE_BATCH * REFERENCE_CONTEXT)
    host = profile.host_s + profile.host_request_s * REFERENCE_BATCH
    return ProfileModel(profile).predict_ns(shape) + round(host * NS_PER_S)
