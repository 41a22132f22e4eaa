"""The prefill curve: time to first token of an idle server as c0 + c1 n + c2 n^2, measured once, then frozen."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import requests

from sarathi_plugin.config import ConfigError, CurveFile
from sarathi_plugin.core import NS_PER_S, SloClass
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.server import ServerError
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.outputs import writing
from sarathi_plugin.workload.model import ScheduledRequest
from sarathi_plugin.workload.synthetic import random_prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SHORTEST = 32
DECODE_TOKENS = 40
_UNJUDGED = Targets(SloClass("none", NS_PER_S, 0), PrefillCurve(0, 0, 0))


def fit_curve(points: Sequence[tuple[int, float]]) -> tuple[float, float, float]:
    """Coefficients (c0, c1, c2) >= 0 that fit (tokens, seconds) best in relative terms.

    Relative, because a second too many matters at 50 tokens and not at 8,000. Exact non-negative least squares: with
    three unknowns the best of the seven sets of non-zero ones can be tried out. Raises ConfigError on fewer than
    three different lengths or times that are not positive.
    """
    if len({n for n, _ in points}) < 3:
        raise ConfigError("A prefill curve needs measurements at three different prompt lengths or more.")
    if min(seconds for _, seconds in points) <= 0:
        raise ConfigError("A prefill curve needs times above zero.")
    n = np.array([tokens for tokens, _ in points], float)
    t = np.array([seconds for _, seconds in points], float)
    top = n.max()
    terms = np.stack([np.ones_like(n), n / top, (n / top) ** 2], axis=1) / t[:, None]
    best, best_error = np.zeros(3), np.inf
    for size in (1, 2, 3):
        for chosen in itertools.combinations(range(3), size):
            solution = np.linalg.lstsq(terms[:, chosen], np.ones_like(t), rcond=None)[0]
            error = float(((terms[:, chosen] @ solution - 1) ** 2).sum())
            if solution.min() >= 0 and error < best_error:
                best, best_error = np.zeros(3), error
                best[list(chosen)] = solution
    return float(best[0]), float(best[1] / top), float(best[2] / top**2)


def curve_lengths(longest: int) -> list[int]:
    """Prompt lengths to measure: doubling from 32 up to ``longest``. Raises ConfigError below 128."""
    if longest < 4 * SHORTEST:
        raise ConfigError(f"A prefill curve needs prompts of up to 128 tokens or more, not {longest}.")
    lengths = [SHORTEST]
    while lengths[-1] * 2 < longest:
        lengths.append(lengths[-1] * 2)
    return [*lengths, longest]


@dataclass(frozen=True, slots=True)
class Probe:
    """Idle, single requests to a running server: what it can do when nothing interferes."""

    client: StreamingClient
    rng: np.random.Generator

    def ttft_s(self, tokens: int) -> float:
        """Time to first token of one prompt of so many random tokens, seconds. Raises ServerError if it fails."""
        return self._run(tokens, 1)[0]

    def decode_gaps_s(self, tokens: int = DECODE_TOKENS, prompt_tokens: int = 64) -> list[float]:
        """Times between the tokens of one lone stream, seconds. Raises ServerError if it fails."""
        return self._run(prompt_tokens, tokens)[1:]

    def _run(self, prompt_tokens: int, output_tokens: int) -> list[float]:
        """[TTFT, gap, gap, ...] of one request, measured from its sending."""
        request = ScheduledRequest(
            request_id="probe",
            offset_ns=0,
            prompt=random_prompt(prompt_tokens, self.rng),
            prompt_tokens=prompt_tokens,
            max_tokens=output_tokens,
            ignore_eos=True,
        )
        timeline = self.client.send(request).timeline
        if timeline.status != "finished" or timeline.ttft_ns is None:
            raise ServerError(f"A prompt of {prompt_tokens} tokens could not be measured: {timeline.error}.")
        return [t / NS_PER_S for t in (timeline.ttft_ns, *timeline.gaps_ns)]


def probe(url: str, model: str, seed: int, *, clock: Callable[[], int] = time.monotonic_ns) -> Probe:
    """A probe of the server at ``url``. Prompts are random, so a prefix cache cannot help."""
    client = StreamingClient(Endpoint(url, model), _UNJUDGED, clock=clock)
    return Probe(client, np.random.default_rng(seed))


def measure_curve(
    probe: Probe,
    lengths: Sequence[int],
    *,
    repeats: int,
    model: str = "",
    hardware: str = "",
    note: Callable[[str], object] = lambda _: None,
) -> CurveFile:
    """Median TTFT at every length (the shortest once more beforehand, to warm up), and the fit.

    note: told after each length. Raises ServerError when a request fails.
    """
    probe.ttft_s(lengths[0])
    points = []
    for tokens in lengths:
        seconds = float(np.median([probe.ttft_s(tokens) for _ in range(repeats)]))
        points.append((tokens, round(seconds, 6)))
        note(f"{tokens:,} tokens: {seconds:.3f} s")
    c0, c1, c2 = fit_curve(points)
    return CurveFile(
        c0_s=c0,
        c1_s_per_token=c1,
        c2_s_per_token2=c2,
        model=model,
        hardware=hardware,
        method=(
            f"median time to first token of {repeats} idle single requests at each length, random token ids, one "
            "output token, measured at the client; relative non-negative least squares"
        ),
        points=points,
    )


def write_curve(path: Path, curve: CurveFile) -> None:
    """Write a curve file. Raises ConfigError when the path cannot be written."""
    with writing(path):
        path.write_text(json.dumps(curve.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")


def served_model(url: str) -> tuple[str, int]:
    """Name and longest context of the first model a server offers. Raises ConfigError if it does not say."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(f"{url.rstrip('/')}/v1/models", timeout=10)
            answer.raise_for_status()
            card = answer.json()["data"][0]
        return str(card["id"]), int(card["max_model_len"])
    except requests.exceptions.RequestException as error:
        raise ConfigError(f"No vLLM server answers at {url} ({type(error).__name__}).") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(f"{url} does not name a model and its length as vLLM does.") from error
