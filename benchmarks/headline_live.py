"""Sarathi-Serve's headline on real servers of the tiny model: capacity of stall-free batching against its baselines.

    make bench-headline-live [ARGS="--seeds 2 --requests 80 --decode-ms 4"]      # hours, nothing else running

The criterion of ``headline.py``. Engine on one core, client on another. Targets are 5 and 25 times ``--decode-ms``, a
step of decodes alone on this machine; the budgets of ``sarathi-static`` are those whose step fits the target here, as
the paper chose its own by profiling. What has been searched is kept in the results and not searched again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
from fidelity.live import CLIENT_CORE, ENGINE_ARGS, ENGINE_ENV
from headline import OBJECTIVES
from headline_table import OURS, live_markdown
from publish import RESULTS

from sarathi_plugin.demo.models import cache_folder, tiny_model
from sarathi_plugin.load.machine import hardware
from sarathi_plugin.search.capacity_command import Task, Wanted
from sarathi_plugin.search.criteria import Sarathi
from sarathi_plugin.search.live_capacity import started
from sarathi_plugin.search.promise import Promise
from sarathi_plugin.workload.spec import WorkloadSpec

ARMS = (OURS, "prefill-first", "orca")
TRAFFIC = {"sharegpt-like": (0.25, 6.0), "arxiv-like": (0.15, 3.0)}
"""Kind -> what its lengths are multiplied by, and requests per second to begin with."""

BUDGETS = {"strict": 128, "relaxed": 768}


def search(
    options: argparse.Namespace, server: Path, traffic: str, objective: str, arm: str
) -> dict[str, Any]:
    """Capacity of one arm on a server of its own."""
    scale, start = TRAFFIC[traffic]
    wanted = Wanted(
        where=str(server), workload=traffic, schedulers=arm, repeats=options.seeds, requests=options.requests,
        resolution=0.08, start=start,
    )  # fmt: skip
    limit_s = OBJECTIVES[objective][0] * options.decode_ms / 1000
    task = Task(
        wanted=wanted,
        workload=WorkloadSpec(kind=traffic, prompt_scale=scale, output_scale=scale),
        criterion=Sarathi(tbt_s=limit_s),
        promise=Promise(prefill_curve="cpu-fast-model"),
    )
    more = ("--sarathi-token-budget", str(BUDGETS[objective])) if arm == OURS else ()
    (found,) = started(task, say=lambda text: print(text, file=sys.stderr, flush=True), more=more)
    return {"traffic": traffic, "objective": objective, "arm": arm, "tbt_s": limit_s, **found}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=80)
    parser.add_argument("--decode-ms", type=float, default=4.0)
    parser.add_argument("--traffic", nargs="+", choices=TRAFFIC, default=list(TRAFFIC))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    setting = {
        "machine": hardware(), "seeds": options.seeds, "requests": options.requests, "decode_ms": options.decode_ms,
        "budgets": BUDGETS,
    }  # fmt: skip
    file = options.results / "headline-live.json"
    kept = json.loads(file.read_text()) if file.is_file() else {}
    rows = kept["rows"] if kept.get("setting") == setting else []
    server = Path("out/headline-live.json")  # JSON is YAML
    server.parent.mkdir(exist_ok=True)
    model = str(tiny_model(cache_folder()).folder)
    server.write_text(json.dumps({"model": model, "args": ENGINE_ARGS, "env": ENGINE_ENV}))
    os.sched_setaffinity(
        0, {CLIENT_CORE}
    )  # the server's front end inherits it; the engine binds itself to the other
    for traffic in options.traffic:
        for objective in OBJECTIVES:
            for arm in ARMS:
                if any((r["traffic"], r["objective"], r["arm"]) == (traffic, objective, arm) for r in rows):
                    continue
                rows.append(search(options, server, traffic, objective, arm))
                file.write_text(json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n")
    text = live_markdown(setting, rows)
    print(text)
    (options.results / "headline-live.md").write_text(text)


if __name__ == "__main__":
    main()
