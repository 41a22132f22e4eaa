"""What a step's duration depends on, as five numbers, and the fit that keeps each coefficient physical.

duration = c . (1, decode tokens, decode context, prefill tokens, prefill query-key pairs), all c >= 0: no token ever
makes a step shorter. Linear layers cost per token, attention per query-key pair (Vidur, arXiv 2405.05465, section 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sarathi_plugin.core import StepShape

FEATURES = ("step", "decode_token", "decode_context_token", "prefill_token", "prefill_pair")
SCALE = (1.0, 1e2, 1e5, 1e3, 1e6)
"""Features are divided by these, so that their sums are of one order and the fit is well conditioned."""


def features(shape: StepShape) -> tuple[float, float, float, float, float]:
    """The scaled features of a step (dimensionless)."""
    return (
        1.0,
        shape.decode_tokens / SCALE[1],
        shape.decode_context / SCALE[2],
        shape.prefill_tokens / SCALE[3],
        shape.prefill_attention / SCALE[4],
    )


def solve_non_negative(gram: NDArray[np.float64], moment: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients >= 0 of the least-squares problem with normal equations ``gram @ c = moment``.

    gram: (n, n) positive definite; moment: (n,). Drops negative coefficients until none is left: not always the exact
    optimum, but physical, and within noise of it for a handful of features.
    """
    active = np.ones(len(moment), bool)
    coefficients = np.zeros_like(moment)
    while active.any():
        part = np.linalg.solve(gram[np.ix_(active, active)], moment[active])
        if (part >= 0).all():
            coefficients[active] = part
            break
        keep = np.flatnonzero(active)
        active[keep[part < 0]] = False
    return coefficients
