"""Whether a prediction holds: the winner served for real, its capacity measured, beside the simulated one."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.machine import kept_to
from sarathi_plugin.load.server import ServerSpec, serve
from sarathi_plugin.search.live import LiveJudge, endpoint_of
from sarathi_plugin.search.repeats import in_sequence, mean_interval
from sarathi_plugin.search.serve_line import serve_arguments, settings_text
from sarathi_plugin.search.trial import deployment_of, one_replica

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sarathi_plugin.search.capacity import Capacity, Verdict
    from sarathi_plugin.search.repeats import Repeated
    from sarathi_plugin.search.space import Config, SearchFile

LIVE_RESOLUTION, LIVE_STEP = 0.05, 1.2


def verify(
    config: Config,
    wanted: SearchFile,
    predicted: Sequence[float],
    seeds: range,
    *,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Serve one replica of a configuration and search its capacity; the search begins at the predicted one.

    predicted: by seed. Returns the conclusion as data. Raises ConfigError without a model to serve, ServerError.
    """
    if wanted.serve is None:
        raise ConfigError("--verify needs a model to serve: name it under serve: in the file.")
    start = statistics.fmean(predicted)
    deployment = deployment_of(one_replica(config), wanted)
    targets = deployment.targets()
    with tempfile.TemporaryDirectory(prefix="sarathi-verify-") as folder:
        file = Path(folder) / "sarathi.yaml"
        words, settings = serve_arguments(deployment, file)
        file.write_text(settings_text(settings), encoding="utf-8")
        spec = ServerSpec(
            wanted.serve.model,
            "verified",
            Path(folder) / "server.log",
            (*wanted.serve.args, *words),
            wanted.serve.env,
        )
        say(f"starting {wanted.serve.model}")
        with kept_to(wanted.serve.client_cores), serve(spec) as server:
            endpoint, length = endpoint_of(server.url)
            workload = wanted.the_workload()
            judge = LiveJudge(
                endpoint,
                length,
                targets,
                lambda rate, seed: workload.trace(rate, wanted.requests, seed),
                wanted.criterion,
            )
            judge.warm_up(start)

            def told(rate: float, seed: int) -> Verdict:
                verdict = judge(rate, seed)
                say(
                    f"live, seed {seed}: {rate:.3g} requests/s {'passed' if verdict.passed else verdict.reason}"
                )
                return verdict

            def note(seed: int, capacity: Capacity) -> None:
                say(f"live, seed {seed}: capacity {capacity.text}")

            found = in_sequence(
                told, list(seeds), start=start, resolution=LIVE_RESOLUTION, step=LIVE_STEP, note=note
            )
    return conclusion(predicted, found)


def conclusion(predicted: Sequence[float], live: Repeated) -> dict[str, Any]:
    """Whether the mean of the predicted capacities lies in the live 95 % interval; None with one repeat.

    live_over_predicted: mean and 95 % interval of the ratios by seed, which do without the spread of the traffic; None
    where nothing was predicted or there is one repeat.
    """
    mean, interval = statistics.fmean(predicted), live.interval
    ratios = [a / b for a, b in zip(live.rates, predicted, strict=True)] if all(predicted) else []
    ratio = mean_interval(ratios)
    return {
        "predicted": mean,
        "predicted_by_repeat": list(predicted),
        "live": live.as_data(),
        "inside": None if interval is None else interval.low <= mean <= interval.high,
        "live_over_predicted": None if ratio is None else list(ratio),
    }
