"""Attention as a roofline: prompt tokens cost operations, decodes cost reading the KV cache.

Per layer and device, with H query heads of width d there: a prompt's chunk takes a constant, a time per token and
width H d, and 4 H d operations per query-key pair; decodes take a constant and the bytes of keys and values read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sarathi_plugin.steptime.staircase import non_negative_least_squares

Array = NDArray[np.float64]

PEAKS = {"a100": (312e12, 2.039e12), "h100": (989e12, 3.35e12)}
"""Dense half-precision operations and bytes per second that the data sheets of the SXM boards with 80 GB promise."""


@dataclass(frozen=True, slots=True)
class Attention:
    """Times of attention kernels on one device.

    prefill_layer_s: constant of a layer with a prompt's chunk. prefill_width_s: per prompt token and number in the
    queries of one token (H d). flops_per_s: operations per second reached. decode_layer_s: constant of a layer with
    decodes. bytes_per_s: KV cache read per second. origin: where it comes from; scaled: from what, if it was.
    """

    prefill_layer_s: float
    prefill_width_s: float
    flops_per_s: float
    decode_layer_s: float
    bytes_per_s: float
    origin: str
    scaled: str = ""

    def on(self, device: str, measured: str = "a100") -> Attention:
        """The same kernels on another device, scaled by the peaks of both. Devices: keys of ``PEAKS``."""
        flops = PEAKS[device][0] / PEAKS[measured][0]
        bandwidth = PEAKS[device][1] / PEAKS[measured][1]
        return replace(
            self,
            prefill_width_s=self.prefill_width_s / bandwidth,
            flops_per_s=self.flops_per_s * flops,
            bytes_per_s=self.bytes_per_s * bandwidth,
            scaled=f"attention from {measured} to {device} by peak operations ({flops:.2f}x) and bandwidth "
            f"({bandwidth:.2f}x)",
        )


@dataclass(frozen=True, slots=True)
class PrefillSamples:
    """Measured prompt chunks, one entry each: seconds per layer, tokens, H d, query-key pairs."""

    seconds: Array
    tokens: Array
    width: Array
    pairs: Array


@dataclass(frozen=True, slots=True)
class DecodeSamples:
    """Measured decode batches, one entry each: seconds per layer, bytes of keys and values read."""

    seconds: Array
    kv_bytes: Array


def fit_attention(prefill: PrefillSamples, decode: DecodeSamples, origin: str) -> Attention:
    """The roofline with the smallest relative errors; ``origin`` gets its mean errors appended.

    Relative, because chunks of a step are mostly far smaller than the longest that was measured.
    """
    rows = np.stack(
        [np.ones_like(prefill.tokens), prefill.tokens * prefill.width, 4 * prefill.width * prefill.pairs],
        axis=1,
    )
    prompt, prompt_error = _relative_fit(rows, prefill.seconds)
    rows = np.stack([np.ones_like(decode.kv_bytes), decode.kv_bytes], axis=1)
    stream, stream_error = _relative_fit(rows, decode.seconds)
    return Attention(
        float(prompt[0]),
        float(prompt[1]),
        float(1 / max(prompt[2], 1e-30)),
        float(stream[0]),
        float(1 / max(stream[1], 1e-30)),
        origin=f"{origin}; mean error of attention alone {prompt_error:.1%} (prompts), {stream_error:.1%} (decodes)",
    )


def _relative_fit(rows: Array, seconds: Array) -> tuple[Array, float]:
    weighted = rows / seconds[:, None]
    found = non_negative_least_squares(weighted, np.ones_like(seconds))
    return found, float(np.abs(weighted @ found - 1).mean())


A100 = Attention(
    prefill_layer_s=6.37e-6,
    prefill_width_s=3.375e-11,
    flops_per_s=1.276e14,
    decode_layer_s=1.555e-5,
    bytes_per_s=1.561e12,
    origin="roofline fitted to Vidur's attention table of CodeLlama-34B, tensor parallel 2 (FlashAttention 2, "
    "2024); mean error of attention alone 11.3% (prompts), 10.5% (decodes)",
)
"""An A100 with 80 GB: prompts reach 128 TFLOP/s, decodes read 1.56 TB/s. For tables that come without attention."""

DEVICES = {"a100": A100, "h100": A100.on("h100")}
"""Attention by device; that of the H100 is scaled, not measured."""
