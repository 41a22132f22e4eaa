"""Sarathi-Serve's headline on real servers of the tiny model: capacity of stall-free batching against its baselines.

    make bench-headline-live [ARGS="--seeds 2 --requests 50"]      # hours, nothing else running

The criterion of ``headline.py``, scaled to what the machine does, which is measured first: the targets are 5 and 25
times a step of decodes alone, and the median scheduling delay at most 100 such steps (the paper's 2 s are that at its
strict target of 0.1 s; unscaled it would let a short run pass at any rate). The budgets of ``sarathi-static`` are the
largest prompts that kept decodes beside them within the target, as the paper chose its own by profiling. Engine on one
core, client on another. What has been measured and searched is kept in the results and not done again; ``--anew``
begins again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
from fidelity.live import CLIENT_CORE, ENGINE_ARGS, ENGINE_ENV
from headline import OBJECTIVES
from headline_table import DOCUMENTS, DOCUMENTS_SHARE, OURS, live_markdown
from publish import RESULTS

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.demo.models import cache_folder, tiny_model
from sarathi_plugin.load.curve import curve_lengths, measure_curve, probe
from sarathi_plugin.load.dispatch import run_open_loop
from sarathi_plugin.load.machine import hardware
from sarathi_plugin.load.server import serve
from sarathi_plugin.search.attempts import answered
from sarathi_plugin.search.capacity_command import Task, Wanted
from sarathi_plugin.search.criteria import Sarathi
from sarathi_plugin.search.live import endpoint_of
from sarathi_plugin.search.live_capacity import read_server, started
from sarathi_plugin.search.promise import Promise
from sarathi_plugin.workload.spec import WorkloadSpec
from sarathi_plugin.workload.synthetic import workload_of
from sarathi_plugin.workload.trace import Trace, TraceRequest

if TYPE_CHECKING:
    from sarathi_plugin.load.client import StreamingClient
    from sarathi_plugin.records import RequestTimeline

ARMS = (OURS, "prefill-first", "orca")
TRAFFIC = {"sharegpt-like": (0.25, 4.0), DOCUMENTS: (0.15, 1.0)}
"""Kind -> what its lengths are multiplied by, and requests per second to begin with."""

DELAY_STEPS = 100
"""Limit of the median scheduling delay, in steps of decodes alone."""

STREAMS, STREAM_PROMPT, STREAM_TOKENS = 16, 64, 160
"""Streams whose decodes are timed, alone and with a prompt beside them."""

PROMPTS = 8
CHUNKS = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Prompts whose steps are timed beside the streams, so many of each length: the budgets to choose from."""

RESOLUTION = 0.1


def say(text: str) -> None:
    """To the person who waits."""
    print(text, file=sys.stderr, flush=True)


def measure_machine(server: Path) -> dict[str, Any]:
    """What the targets hang on: a step of decodes alone, the prefill curve, and the budgets that follow."""
    file = read_server(str(server))
    with tempfile.TemporaryDirectory() as folder, serve(file.spec(Path(folder) / "server.log")) as up:
        endpoint, _ = endpoint_of(up.url)
        alone = probe(up.url, endpoint.model, 0)
        curve = measure_curve(
            alone, curve_lengths(4096), repeats=5, model="tiny", hardware=hardware(), note=say
        )
        decode_s = decode_step_s(alone.client)
        say(f"a step of {STREAMS} decodes alone: {1000 * decode_s:.2f} ms")
        mixed = {tokens: mixed_step_s(alone.client, tokens) for tokens in CHUNKS}
    for tokens, seconds in mixed.items():
        say(f"with a chunk of {tokens} tokens: {1000 * seconds:.1f} ms")
    budgets = {name: budget_within(mixed, times * decode_s) for name, (times, _) in OBJECTIVES.items()}
    return {
        "decode_s": decode_s,
        "curve": curve.model_dump(mode="json"),
        "mixed_s": mixed,
        "budgets": budgets,
    }


def streams(tokens: int) -> list[TraceRequest]:
    """Requests that decode side by side from the start of a run."""
    return [
        TraceRequest(request_id=f"stream {n}", offset_ns=0, prompt_tokens=STREAM_PROMPT, output_tokens=tokens)
        for n in range(STREAMS)
    ]


def decode_step_s(client: StreamingClient) -> float:
    """Median time between tokens once every stream has its first, seconds."""
    trace = Trace("decodes", tuple(streams(STREAM_TOKENS)))
    timelines = run_open_loop(workload_of(trace, 0), client.send).timelines
    quiet_ns = max(t.token_ns[0] for t in timelines)
    return (
        statistics.median(gap for t in timelines for end, gap in gaps_of(t) if end - gap >= quiet_ns)
        / NS_PER_S
    )


def mixed_step_s(client: StreamingClient, tokens: int) -> float:
    """The longest time between tokens of the streams while a prompt of so many tokens runs beside them, seconds.

    Of a few such prompts, one after another. Stock vLLM takes each in one step, as its budget is larger.
    """
    prompts = [
        TraceRequest(
            request_id=f"prompt {n}",
            offset_ns=round((0.5 + 0.2 * n) * NS_PER_S),
            prompt_tokens=tokens,
            output_tokens=1,
        )
        for n in range(PROMPTS)
    ]
    trace = Trace("mixed", (*streams(3 * STREAM_TOKENS), *prompts))
    timelines = run_open_loop(workload_of(trace, tokens), client.send).timelines
    decoding, prefilling = timelines[:STREAMS], timelines[STREAMS:]
    spans = [(p.sent_ns or p.arrival_ns, p.token_ns[0] + NS_PER_S // 100) for p in prefilling]
    beside = [
        g for t in decoding for end, g in gaps_of(t) if any(first <= end <= last for first, last in spans)
    ]
    return max(beside) / NS_PER_S


def gaps_of(timeline: RequestTimeline) -> list[tuple[int, int]]:
    """(when it ended, how long it took) of every time between tokens, nanoseconds."""
    return list(zip(timeline.token_ns[1:], timeline.gaps_ns, strict=True))


def budget_within(mixed: dict[int, float], target_s: float) -> int:
    """The largest chunk beside which the streams kept to the target; the smallest when none is."""
    fitting = [tokens for tokens, seconds in mixed.items() if seconds <= target_s]
    return max(fitting, default=min(mixed))


def search(
    options: argparse.Namespace,
    server: Path,
    machine: dict[str, Any],
    start: float,
    cell: tuple[str, str, str],
) -> dict[str, Any]:
    """Capacity of one arm on a server of its own."""
    traffic, objective, arm = cell
    scale, _ = TRAFFIC[traffic]
    share = DOCUMENTS_SHARE if traffic == DOCUMENTS else 1
    curve = server.with_name("headline-live-curve.json")
    curve.write_text(json.dumps(machine["curve"]))
    wanted = Wanted(
        where=str(server), workload=traffic, schedulers=arm, repeats=options.seeds,
        requests=round(share * options.requests), resolution=RESOLUTION, start=start,
    )  # fmt: skip
    limit_s = OBJECTIVES[objective][0] * machine["decode_s"]
    task = Task(
        wanted=wanted,
        workload=WorkloadSpec(kind=traffic, prompt_scale=scale, output_scale=scale),
        criterion=Sarathi(tbt_s=limit_s, delay_s=DELAY_STEPS * machine["decode_s"]),
        promise=Promise(prefill_curve=str(curve)),
    )
    more = ("--sarathi-token-budget", str(machine["budgets"][objective])) if arm == OURS else ()
    (found,), _ = answered(started(task, say=say, more=more))
    return {"traffic": traffic, "objective": objective, "arm": arm, "tbt_s": limit_s, **found}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--traffic", nargs="+", choices=TRAFFIC, default=list(TRAFFIC))
    parser.add_argument(
        "--anew", action="store_true", help="forget what an earlier run measured and searched"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    setting = {"machine": hardware(), "seeds": options.seeds, "requests": options.requests}
    file = options.results / "headline-live.json"
    kept = json.loads(file.read_text()) if file.is_file() and not options.anew else {}
    server = Path("out/headline-live.json")  # JSON is YAML
    server.parent.mkdir(exist_ok=True)
    model = str(tiny_model(cache_folder()).folder)
    server.write_text(json.dumps({"model": model, "args": ENGINE_ARGS, "env": ENGINE_ENV}))
    # The server's front end inherits it; the engine binds itself to the other core.
    os.sched_setaffinity(0, {CLIENT_CORE})
    if kept.get("setting") != setting:
        kept = {"setting": setting, "measured": measure_machine(server), "rows": []}
    rows = kept["rows"]
    for traffic in options.traffic:
        start = TRAFFIC[traffic][1]
        for objective in OBJECTIVES:
            for arm in ARMS:
                cell = traffic, objective, arm
                found = next((r for r in rows if (r["traffic"], r["objective"], r["arm"]) == cell), None)
                if found is None:
                    found = search(options, server, kept["measured"], start, cell)
                    rows.append(found)
                    file.write_text(json.dumps(kept, indent=1) + "\n")
                start = statistics.mean(found["by_repeat"]) or start
    text = live_markdown(kept)
    print(text)
    (options.results / "headline-live.md").write_text(text)


if __name__ == "__main__":
    main()
