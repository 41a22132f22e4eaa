"""Client and server look at the same requests: how far apart are their figures, and where does the difference arise?

Both read the machine's monotonic clock, so the way of each request can be cut where one hands over to the other.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtest.cores import SERVER_CORE, loadtest
from sarathi_plugin.demo import tiny
from sarathi_plugin.load.server import ServerSpec, serve
from sarathi_plugin.loadtest.figures import figures
from sarathi_plugin.telemetry.recording import read_recording

if TYPE_CHECKING:
    from pathlib import Path

    from sarathi_plugin.records import RequestTimeline

SERVE = (
    "--load-format", "dummy", "--dtype", "float32", "--enforce-eager", "--max-model-len", "8192", "--max-num-seqs",
    "64", "--no-enable-prefix-caching", "--scheduler", "sarathi",
)  # fmt: skip
COMPARED = (
    "fluidity_index", "fluidity_share", "ttft_p50_s", "ttft_p90_s", "ttft_sent_p50_s", "tbt_p50_s", "tbt_p99_s",
    "e2e_p50_s",
)  # fmt: skip

MOST_FLUIDITY, MOST_TTFT_MS = 0.02, 10


def agreement(folder: Path, *, rate: float, seconds: float, scale: float, chat: bool) -> dict[str, Any]:
    """Serve the tiny model, send, compare. The engine computes on one core, the client runs on another."""
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    tiny.write(model)
    recording = folder / "recording.jsonl.gz"
    recording.unlink(missing_ok=True)
    env = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": str(SERVER_CORE)}
    spec = ServerSpec(
        str(model), "tiny", folder / "server.log", (*SERVE, "--sarathi-record", str(recording)), env, 600
    )
    args = ("--scale", str(scale), *(("--chat",) if chat else ()))
    with serve(spec) as server:
        loadtest(server.url, folder / "warm-up", "--rate", "1", "--requests", "8", "--seed", "99", *args)
        run = loadtest(
            server.url,
            folder / "out",
            "--rate",
            str(rate),
            "--duration",
            f"{seconds:g}s",
            "--seed",
            "1",
            *args,
        )
        time.sleep(1)  # the recording is written twice a second
    pairs = match(run.timelines, read_recording(recording).timelines)
    client, server_side = ([pair[side] for pair in pairs] for side in (0, 1))
    theirs, ours = figures(server_side), figures(client)
    ttft_ms = 1000 * (ours["ttft_p50_s"] - theirs["ttft_p50_s"])
    return {
        "met": {
            "fluidity-index within 0.02": abs(ours["fluidity_index"] - theirs["fluidity_index"])
            < MOST_FLUIDITY,
            "TTFT P50 within 5 % + 10 ms": abs(ttft_ms) < 50 * theirs["ttft_p50_s"] + MOST_TTFT_MS,
        },
        "verdict": run.summary["verdict"],
        "load_average": os.getloadavg()[0],
        "invalid": run.summary["invalid"],
        "requests": len(run.timelines),
        "matched": len(pairs),
        "endpoint": run.summary["run"]["endpoint"],
        "prompt_lengths": run.summary["run"]["prompt_lengths"],
        "client": {name: ours[name] for name in COMPARED},
        "server": {name: theirs[name] for name in COMPARED},
        "way_ms": way(pairs),
    }


def match(
    client: list[RequestTimeline], server: list[RequestTimeline]
) -> list[tuple[RequestTimeline, RequestTimeline]]:
    """The same request on both sides; the server's id holds the client's (X-Request-Id)."""
    begin = min(t.arrival_ns for t in client)
    found = {}
    for timeline in server:
        if timeline.arrival_ns >= begin:  # not the warm-up, whose ids are the same
            head, _, _ = timeline.request_id.removeprefix("cmpl-").removeprefix("chatcmpl-").partition("-")
            rest = timeline.request_id.partition(f"{head}-")[2]
            found[rest] = timeline
    pairs = []
    for timeline in client:
        same = [
            t
            for rest, t in found.items()
            if rest == timeline.request_id or rest.startswith(f"{timeline.request_id}-")
        ]
        if len(same) == 1:
            pairs.append((timeline, same[0]))
    return pairs


def way(pairs: list[tuple[RequestTimeline, RequestTimeline]]) -> dict[str, dict[str, float]]:
    """Milliseconds at P50 and P99 of each part of a request's way, and of the way of every token."""
    parts: dict[str, list[float]] = {
        "intended to sent (client)": [c.sent_ns - c.arrival_ns for c, _ in pairs],
        "sent to arrived in the engine's books (HTTP, checks, tokenizer)": [s.arrival_ns - c.sent_ns for c, s in pairs],
        "arrived to first token computed (what the server calls TTFT)": [s.ttft_ns for _, s in pairs],
        "first token computed to received": [c.token_ns[0] - s.token_ns[0] for c, s in pairs],
        "any token computed to received": [
            got - made for c, s in pairs for got, made in zip(c.token_ns, s.token_ns, strict=False)
        ],
        "TTFT of the client less that of the server, request by request": [c.ttft_ns - s.ttft_ns for c, s in pairs],
        "sent to HTTP headers received": [c.first_byte_ns - c.sent_ns for c, _ in pairs],
    }  # fmt: skip
    return {
        name: {f"p{p}": round(float(np.percentile(values, p)) / 1e6, 2) for p in (50, 99)}
        for name, values in parts.items()
    }
