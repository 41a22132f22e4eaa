import json

import numpy as np
import pytest

from sarathi_plugin.config import ConfigError, load_curve
from sarathi_plugin.load.curve import (
    curve_lengths,
    fit_curve,
    measure_curve,
    probe,
    served_model,
    write_curve,
)
from sarathi_plugin.load.server import ServerError


def points(c0, c1, c2, lengths=(32, 64, 128, 256, 512, 1024, 2048, 4096)):
    return [(n, c0 + c1 * n + c2 * n * n) for n in lengths]


@pytest.mark.parametrize("true", [(0.02, 1e-4, 5e-9), (0.0, 1e-4, 0.0), (0.05, 0.0, 1e-8), (0.3, 0.0, 0.0)])
def test_exact_points_give_their_curve(true):
    assert fit_curve(points(*true)) == pytest.approx(true, rel=1e-6, abs=1e-12)


def test_fit_is_the_best_of_a_fine_grid():
    rng = np.random.default_rng(1)
    noisy = [(n, t * rng.uniform(0.8, 1.2)) for n, t in points(0.02, 2e-4, 1e-9)]

    def error(c):
        return sum(((c[0] + c[1] * n + c[2] * n * n) / t - 1) ** 2 for n, t in noisy)

    best = fit_curve(noisy)
    assert min(best) >= 0
    for _ in range(2000):
        other = [max(0.0, c * rng.uniform(0.8, 1.2) + rng.uniform(-1, 1) * scale)
                 for c, scale in zip(best, (1e-3, 1e-6, 1e-10), strict=True)]  # fmt: skip
        assert error(best) <= error(other) + 1e-12


def test_falling_times_give_no_negative_coefficient():
    assert min(fit_curve([(32, 0.5), (64, 0.4), (128, 0.3), (256, 0.2)])) >= 0


def test_too_little_to_fit():
    with pytest.raises(ConfigError, match="three different"):
        fit_curve([(32, 0.1), (64, 0.2), (64, 0.2)])
    with pytest.raises(ConfigError, match="above zero"):
        fit_curve([(32, 0.1), (64, 0.2), (128, 0.0)])


def test_lengths():
    assert curve_lengths(300) == [32, 64, 128, 256, 300]
    assert curve_lengths(256) == [32, 64, 128, 256]
    with pytest.raises(ConfigError, match="128"):
        curve_lengths(100)


def answer(handler):
    prompt = handler.server.bodies[-1]["prompt"]
    handler.begin()
    handler.token("a", total=1, prompt=len(prompt), finish="length")
    handler.event("[DONE]")
    handler.end()


def test_measure_and_write(stand_in, tmp_path):
    server = stand_in(answer)
    told = []
    curve = measure_curve(
        probe(server.url, "m", 0), [32, 64, 128], repeats=2, model="M", hardware="H", note=told.append
    )
    assert [n for n, _ in curve.points] == [32, 64, 128]
    assert len(told) == 3
    prompts = [body["prompt"] for body in server.bodies]
    assert sorted(map(len, prompts)) == [32, 32, 32, 64, 64, 128, 128]
    assert len({tuple(prompt[:8]) for prompt in prompts}) == 7, "a prefix cache could have helped"
    path = tmp_path / "curve.json"
    write_curve(path, curve)
    assert load_curve(str(path)) == curve.build()
    assert json.loads(path.read_text())["method"].startswith("median time to first token of 2 idle")


def test_failures(stand_in, tmp_path):
    def refuse(handler):
        handler.send_error(503)

    server = stand_in(refuse)
    with pytest.raises(ServerError, match="http 503"):
        probe(server.url, "m", 0).ttft_s(32)
    with pytest.raises(ConfigError, match="No vLLM server answers"):
        served_model(server.url)
    with pytest.raises(ConfigError, match="Cannot write"):
        write_curve(
            tmp_path / "no" / "x.json",
            measure_curve(probe(stand_in(answer).url, "m", 0), [1, 2, 3], repeats=1),
        )
