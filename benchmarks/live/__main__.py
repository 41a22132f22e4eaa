"""The policies on real servers: stock vLLM at its default and at its best budget, Sarathi-Serve, ours.

    python -m live [--repeats 5] [--requests 120] [--rates 2.5,3.5] [--best-budget N] [--scale 0.25]
        [--traffic sharegpt-like] [--capacity [REPEATS]] [--smollm2 [REPEATS]]

A tiny model with one core for the engine and one for the client; open loop, ShareGPT-like lengths times 0.25; or chats
with documents among them (``--traffic mixed-classes``), which are promised four times the D_d and a TTFT slack of 8 s;
or turns of sessions with prefix caching (``--traffic chat-sessions`` or ``agentic``). The servers of all arms are up
together and one is loaded at a time, in an order that rotates with every repeat. Every run is kept in
``out/bench-live`` and not done again; stop it when you like. On a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE))

from fidelity.live import CLIENT_CORE, ENGINE_CORE
from publish import RESULTS, publish

from live.bench import Bench, rotated
from live.picture import draw
from live.servers import (
    ARMS,
    BEST,
    DEFAULT,
    DOCUMENT_FACTOR,
    DOCUMENT_SLACK_NS,
    MIXED,
    OURS,
    Promise,
    smollm2_promise,
    smollm2_specs,
    tiny_promise,
    tiny_spec,
)
from live.table import compare, markdown
from live.units import CHATS, SCALE, SESSIONS, Store, Unit
from sarathi_plugin import __version__
from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.load.machine import hardware
from sarathi_plugin.workload.kinds import make_trace

SMOLLM2_SCALE, SMOLLM2_LOAD = 0.1, 0.4
"""Of the lengths; and the share of the time for which the prompts alone would keep the engine busy."""

SMOLLM2_REQUESTS = 40


def main() -> None:
    """The command. Exit code 2 for bad options."""
    options = parse()
    signal.signal(signal.SIGTERM, leave)
    options.out.mkdir(parents=True, exist_ok=True)
    cores = os.sched_getaffinity(0)
    if not {ENGINE_CORE, CLIENT_CORE} <= cores:
        raise SystemExit(
            f"The bench needs cores {ENGINE_CORE} and {CLIENT_CORE}; this process may use {cores}."
        )
    machine = hardware()
    tuned = options.repeats and BEST in options.arms
    budget = (options.best_budget or find_budget(options)) if tuned else 0
    os.sched_setaffinity(
        0, {CLIENT_CORE}
    )  # servers inherit it; the engines bind themselves to the other core
    store = Store(options.out / "runs")
    promise = tiny_promise(options.tbt_ms, options.slack_ms, options.traffic)
    specs = {
        arm: tiny_spec(arm, promise, budget, options.out, options.traffic)
        for arm in ARMS
        if arm != BEST or budget
    }
    bench = Bench(store)
    tiny = options.repeats or options.capacity
    summary: dict[str, Any] = {
        "setting": setting(options, budget, machine) if tiny else "",
        "version": __version__,
        "best_budget": budget or None,
        "comparison": compare(bench.units(comparison(options, promise), specs, promise)),
        "capacity": bench.capacity(options, specs, promise) if options.capacity else {},
    }
    about, loads = (
        smollm2(bench, options.smollm2, options.out / "smollm2", machine) if options.smollm2 else ("", {})
    )
    summary |= {"smollm2_setting": about, "smollm2": loads}
    summary["runs"] = {unit.file: result for unit, result in bench.done.items()}
    options.results.mkdir(parents=True, exist_ok=True)
    publish("live", summary, markdown(summary), options.results)
    if summary["comparison"] or summary["capacity"]:
        draw(summary, options.results / "live.png")


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m live", description=__doc__.splitlines()[0])
    names = lambda text: tuple(text.split(","))  # noqa: E731
    rates = lambda text: tuple(float(part) for part in text.split(","))  # noqa: E731
    parser.add_argument("--arms", type=names, default=ARMS, help="of " + ",".join(ARMS))
    parser.add_argument("--rates", type=rates, default=(2.5, 3.5), help="requests a second")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--requests", type=int, default=120, help="of a run of the tiny model")
    parser.add_argument("--best-budget", type=int, help="without it the simulator finds one")
    parser.add_argument("--tbt-ms", type=float, default=50.0, help="D_d")
    parser.add_argument("--slack-ms", type=float, default=300.0, help="TTFT slack")
    parser.add_argument(
        "--scale", type=float, default=SCALE, help="of the lengths of the tiny model's requests"
    )
    parser.add_argument("--traffic", choices=(CHATS, MIXED, *SESSIONS), default=CHATS)
    parser.add_argument(
        "--capacity",
        type=int,
        nargs="?",
        const=2,
        default=0,
        metavar="REPEATS",
        help="fluid capacity at 95 %%, by bisection",
    )
    parser.add_argument(
        "--smollm2",
        type=int,
        nargs="?",
        const=3,
        default=0,
        metavar="REPEATS",
        help=f"the real model too, {SMOLLM2_REQUESTS} requests a run",
    )
    parser.add_argument("--out", type=Path, default=Path("out/bench-live"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if unknown := set(options.arms) - set(ARMS):
        parser.error(f"no arm is called {min(unknown)}; known: {', '.join(ARMS)}")
    if (
        min(*options.rates, options.scale) <= 0
        or options.requests < 1
        or min(options.repeats, options.capacity, options.smollm2) < 0
    ):
        parser.error("rates, scale and requests must be above zero, repeats not below")
    if options.requests / min(options.rates) > 900:
        parser.error("a run would take more than a quarter of an hour: fewer requests, or a higher rate")
    return options


def leave(signum: int, _frame: object) -> NoReturn:
    """End by an exception, so that the servers are stopped."""
    raise SystemExit(128 + signum)


def find_budget(options: argparse.Namespace) -> int:
    """Stock's best budget, from the simulator; kept."""
    path = (
        options.out
        / f"best-budget-{options.tbt_ms:g}-{options.slack_ms:g}-{options.scale:g}-{options.traffic}.json"
    )
    if not path.is_file():
        print("looking for stock's best budget on the simulator", file=sys.stderr, flush=True)
        argv = [
            sys.executable,
            "-m",
            "live.budget",
            *map(str, (options.tbt_ms, options.slack_ms, options.scale, options.traffic)),
        ]
        env = {**os.environ, "PYTHONPATH": str(HERE)}
        found = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, env=env).stdout
        path.write_text(found.strip().splitlines()[-1] + "\n")
    data = json.loads(path.read_text())
    print(f"stock at each budget, simulated: {data['capacities']}", file=sys.stderr, flush=True)
    return int(data["best"])


def setting(options: argparse.Namespace, budget: int, machine: str) -> str:
    """What was measured, in words."""
    repeats = (
        f"{options.repeats} repeats x {options.requests}"
        if options.repeats
        else f"runs of {options.requests}"
    )
    best = f"; stock at its best budget: {budget} tokens" if budget else ""
    lengths, documents = "ShareGPT-like", ""
    if options.traffic in SESSIONS:
        lengths = f"{options.traffic}, prefix caching on,"
    if options.traffic == MIXED:
        lengths = "70 % chats and 30 % documents of arXiv"
        documents = (
            f" (documents {DOCUMENT_FACTOR * options.tbt_ms:g} ms and {DOCUMENT_SLACK_NS / NS_PER_S:g} s)"
        )
    return (
        f"Tiny Llama (4 layers x 256, random weights), vLLM on one core, client on another ({machine}); {lengths} "
        f"lengths x {options.scale:g}, open loop, {repeats} requests; D_d {options.tbt_ms:g} ms, TTFT slack "
        f"{options.slack_ms:g} ms{documents}{best}."
    )


def comparison(options: argparse.Namespace, promise: Promise) -> list[Unit]:
    """All units, interleaved: the order of the arms rotates with every repeat and load."""
    return [
        Unit(
            "compare",
            arm,
            rate,
            repeat,
            100 * repeat + place,
            options.requests,
            options.scale,
            promise.key,
            options.traffic,
        )
        for repeat in range(options.repeats)
        for place, rate in enumerate(options.rates)
        for arm in rotated(options.arms, repeat + place)
    ]


def smollm2(bench: Bench, repeats: int, out: Path, machine: str) -> tuple[str, dict[str, Any]]:
    """(what was measured, in words, stock's default and ours) on the real model, at a load its prefill curve sets."""
    out.mkdir(exist_ok=True)
    promise = smollm2_promise(out, seed=0)
    curve, slo = promise.targets.curve, promise.slo
    trace = make_trace(CHATS, rate=1.0, count=400, seed=0).resized(SMOLLM2_SCALE, SMOLLM2_SCALE)
    work_s = sum(curve.prefill_ns(request.prompt_tokens) for request in trace.requests) / 400 / 1e9
    rate = round(SMOLLM2_LOAD / work_s, 3)
    units = [
        Unit("smollm2", arm, rate, repeat, 9000 + repeat, SMOLLM2_REQUESTS, SMOLLM2_SCALE, promise.key)
        for repeat in range(repeats)
        for arm in rotated((DEFAULT, OURS), repeat)
    ]
    about = (
        f"SmolLM2-135M-Instruct, vLLM on one core, client on another ({machine}); ShareGPT-like lengths x "
        f"{SMOLLM2_SCALE:g}, open loop, {repeats} repeats x {SMOLLM2_REQUESTS} requests; D_d "
        f"{slo.tbt_ns / NS_PER_MS:.0f} ms (four lone decode steps), TTFT slack {slo.ttft_slack_ns / NS_PER_MS:.0f} ms."
    )
    return about, compare(bench.units(units, smollm2_specs(out, promise), promise))


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
