"""Experiments and runs for tests, without any engine."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import yaml

from sarathi_plugin.deadlines import count_deadlines, inter_token_times
from sarathi_plugin.evaluate.analysis import Results
from sarathi_plugin.evaluate.plan import Unit
from sarathi_plugin.evaluate.spec import Experiment
from sarathi_plugin.evaluate.store import StoredRun
from sarathi_plugin.records import RequestTimeline

MS = 1_000_000


def settings(**more: Any) -> dict[str, Any]:
    """A small experiment as YAML has it."""
    data: dict[str, Any] = {
        "name": "test",
        "classes": {"standard": {"tbt_ms": 50, "ttft_slack_ms": 300}},
        "engine": {"max_model_len": 8192, "max_num_seqs": 64, "async_scheduling": False},
        "arms": [{"name": "stock"}, {"name": "ours", "scheduler": "sarathi"}],
        "subject": "ours",
        "baseline": "stock",
        "workloads": [
            {
                "name": "chats",
                "source": "sharegpt-like",
                "prompt_scale": 0.25,
                "output_scale": 0.1,
                "loads": [2.0, 4.0],
                "requests": 40,
                "warm_up": 5,
            }
        ],
        "seeds": [11, 12],
    }
    return data | more


def experiment(**more: Any) -> Experiment:
    """The same, checked."""
    return Experiment.model_validate(settings(**more))


def write(folder: Path, **more: Any) -> Path:
    """The same as a file."""
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(settings(**more)), encoding="utf-8")
    return path


def heed_interrupts() -> None:
    """In a child, first of all: what a shell puts in the background starts with Ctrl-C ignored, and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def timeline(name: str, arrival_ms: float, gaps_ms: list[float], **more: Any) -> RequestTimeline:
    """A request that got its tokens at these gaps; the first is its TTFT."""
    arrival = round(arrival_ms * MS)
    tokens, at = [], arrival
    for gap in gaps_ms:
        at += round(gap * MS)
        tokens.append(at)
    count = count_deadlines(inter_token_times(arrival, tokens), 400 * MS, 50 * MS)
    facts: dict[str, Any] = {
        "request_id": name,
        "source": "client",
        "slo_class": "standard",
        "arrival_ns": arrival,
        "sent_ns": arrival,
        "scheduled_ns": None,
        "token_ns": tuple(tokens),
        "end_ns": at,
        "status": "finished",
        "prompt_tokens": 100,
        "tbt_ns": 50 * MS,
        "ttft_slack_ns": 300 * MS,
        "prefill_ns": 100 * MS,
        "curve": "c",
        "met": count.met,
        "missed": count.missed,
    }
    return RequestTimeline(**(facts | more))


def run(
    arm: str,
    seed: int,
    value: float,
    *,
    load: float = 2.0,
    repeat: int = 0,
    reasons: tuple[str, ...] = (),
    **more: Any,
) -> StoredRun:
    """A finished run with this share of fluid requests."""
    unit = Unit("run", "chats", load, seed, repeat, arm)
    figures = {"fluid_share": value, "ttft_p99": 1000 * (1.1 - value)}
    return StoredRun(
        unit,
        {"figures": figures, "validity": {"reasons": list(reasons)}, "environment": "e"} | more,
        Path("none"),
    )


def results(runs: list[StoredRun], requests: int = 100, resolution: float = 0.0) -> Results:
    """Runs as the analysis takes them."""
    return Results(runs, list(dict.fromkeys(one.unit.arm for one in runs)), {"chats": requests}, resolution)
