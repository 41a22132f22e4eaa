"""How many tokens a second one worker handles, beside ``vllm bench serve`` at the same server in the same run.

The server is scripted: it sends every token at a time of its own and notes when it did, so that a client's error is
known. More and more streams of 50 tokens a second, 6 seconds each; server and client have a core each.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import requests

from loadtest.cores import CLIENT_CORE, SERVER_CORE, loadtest, on, pinned
from sarathi_plugin.demo import tiny
from sarathi_plugin.load.server import vllm_command

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL_MS, TOKENS = 20, 300
ACCURACY_STREAMS, ACCURACY_INTERVAL_MS, ACCURACY_TOKENS = 64, 50, 200
MOST_MS = 2.0
"""By which the gaps of the client may be further from the truth at P99 than the server's own."""

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def scripted(interval_ms: int = INTERVAL_MS) -> Iterator[str]:
    """The scripted server on its core."""
    argv = [
        sys.executable, str(ROOT / "tests" / "loadtest" / "scripted.py"), "--interval-ms", str(interval_ms),
        "--first-ms", "100",
    ]  # fmt: skip
    process = subprocess.Popen(pinned(SERVER_CORE, argv), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


def errors_ms(gaps_ns: list[int], interval_ms: int = INTERVAL_MS) -> float:
    """P99 of how far gaps are from the interval, milliseconds."""
    return round(float(np.percentile(np.abs(np.array(gaps_ns) - interval_ms * 1e6), 99)) / 1e6, 2)


def sent_error_ms(url: str, interval_ms: int = INTERVAL_MS) -> float:
    """The server's own error."""
    with requests.Session() as session:
        session.trust_env = False
        log = session.get(f"{url}/log", timeout=120).json()
    return errors_ms([b - a for entry in log.values() for a, b in pairwise(entry["sent_ns"])], interval_ms)


def ours(folder: Path, streams: int, interval_ms: int = INTERVAL_MS, tokens: int = TOKENS) -> dict[str, Any]:
    """``sarathi loadtest`` with so many streams that begin within a second."""
    rows = [
        {
            "request_id": f"s-{i}",
            "offset_ns": i * 10**9 // streams,
            "prompt_tokens": 32,
            "output_tokens": tokens,
        }
        for i in range(streams)
    ]
    (folder / "streams.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "streams.yaml").write_text("trace: streams.jsonl\n")
    with scripted(interval_ms) as url:
        run = loadtest(url, folder / f"out-{streams}", "--workload", str(folder / "streams.yaml"))
        server = sent_error_ms(url, interval_ms)
    return {
        "valid": not run.summary["invalid"],
        "invalid": run.summary["invalid"],
        "tokens_per_s": round(run.summary["figures"]["output_tokens_per_s"]),
        "peak_tokens_per_s": peak([t for timeline in run.timelines for t in timeline.token_ns]),
        "cpu": round(max(w["cpu"] for w in run.summary["run"]["workers"]), 2),
        "gap_error_p99_ms": errors_ms([gap for t in run.timelines for gap in t.gaps_ns], interval_ms),
        "server_gap_error_p99_ms": server,
    }


def peak(times_ns: list[int]) -> int:
    """Tokens in the fullest second."""
    ordered = np.sort(np.array(times_ns))
    return int((np.searchsorted(ordered, ordered + 10**9) - np.arange(len(ordered))).max())


def theirs(folder: Path, streams: int) -> dict[str, Any]:
    """``vllm bench serve`` with the same."""
    result = folder / f"bench-{streams}.json"
    with scripted() as url:
        argv = [
            vllm_command(), "bench", "serve", "--backend", "openai", "--base-url", url, "--model", "scripted",
            "--tokenizer", str(folder / "model"), "--dataset-name", "random", "--random-input-len", "32",
            "--random-output-len", str(TOKENS), "--num-prompts", str(streams), "--request-rate", str(streams),
            "--burstiness", "1000", "--ignore-eos", "--disable-tqdm", "--ready-check-timeout-sec", "0",
            "--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", result.name,
        ]  # fmt: skip
        done = on(CLIENT_CORE, argv)
        if not result.is_file():
            raise RuntimeError(f"vllm bench serve left no result: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        server = sent_error_ms(url)
    data = json.loads(result.read_text())
    gaps = [round(gap * 1e9) for stream in data["itls"] for gap in stream]
    return {
        "completed": data["completed"],
        "tokens_per_s": round(sum(len(stream) + 1 for stream in data["itls"]) / data["duration"]),
        "gap_error_p99_ms": errors_ms(gaps),
        "server_gap_error_p99_ms": server,
    }


def accuracy(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """64 streams of 20 tokens a second, ours alone: are the gaps within 2 ms of the server's own error?"""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for _ in range(repeats):
        row = ours(folder, ACCURACY_STREAMS, ACCURACY_INTERVAL_MS, ACCURACY_TOKENS)
        row["met"] = row["gap_error_p99_ms"] <= row["server_gap_error_p99_ms"] + MOST_MS
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def throughput(folder: Path, steps: list[int]) -> list[dict[str, Any]]:
    """Both at each number of streams."""
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    tiny.write(model)
    rows = []
    for streams in steps:
        row = {
            "streams": streams,
            "load_average": os.getloadavg()[0],
            "sarathi loadtest": ours(folder, streams),
            "vllm bench serve": theirs(folder, streams),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows
