"""What the plugin costs per step: ``schedule`` + ``update_from_output`` against stock vLLM, paired.

Every round times one step of each arm in turn (stock, vllm, sarathi, then the other way round), so that drift hits all
alike. A step carries N running decodes and one 256-token chunk of a long prompt, as in a loaded server.
Model execution is not part of it. Run it on a machine that does nothing else::

    python benchmarks/overhead.py [--rounds 300] [--out results/overhead.json]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "engine"))

from emulator import VirtualClock, make_config, make_scheduler
from vllm.sampling_params import SamplingParams
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

ARMS: dict[str, str | None] = {"stock": None, "vllm": "vllm", "sarathi": "sarathi", "page": "sarathi"}
"""``page``: with the live page on."""
CHUNK = 256
PROMPT = 15_000


class Arm:
    """One scheduler kept at N decodes and one prompt under way."""

    def __init__(self, name: str, config: Any, decodes: int, clock: VirtualClock) -> None:
        settings: dict[str, Any] = {}
        if ARMS[name] == "sarathi":
            settings = {"token_budget": decodes + CHUNK, "tbt_ms": 1000.0}
        os.environ["VLLM_PLUGINS"] = "sarathi"
        if name == "page":
            os.environ["VLLM_PLUGINS"] = "sarathi,sarathi-page"
            settings["session"] = f"overhead{os.getpid()}"
        self.clock = clock
        self.scheduler = make_scheduler(config, ARMS[name], blocks=60_000, clock=clock, **settings)
        self.count = 0
        for _ in range(decodes):
            self.add(64, 100_000)
        while self.prompting():
            self.step()
        self.long = self.add(PROMPT, 1)
        for _ in range(8):
            self.step()

    def prompting(self) -> bool:
        """Whether any prompt is unfinished."""
        scheduler = self.scheduler
        return bool(scheduler.waiting) or any(r.is_prefill_chunk for r in scheduler.running)

    def add(self, prompt: int, tokens: int) -> str:
        """Queue a request; returns its id."""
        self.count += 1
        name = f"r{self.count}"
        sampling = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0.0)
        self.scheduler.add_request(
            Request(name, list(range(1, prompt + 1)), sampling, None, arrival_time=self.clock.ns / 1e9)
        )
        return name

    def step(self) -> int:
        """One step; returns the nanoseconds of schedule and update."""
        scheduler = self.scheduler
        start = time.perf_counter_ns()
        output = scheduler.schedule()
        spent = time.perf_counter_ns() - start
        requests = scheduler.requests
        names = list(output.num_scheduled_tokens)
        sampled = [[] if requests[name].is_prefill_chunk else [7] for name in names]
        result = ModelRunnerOutput(
            req_ids=names, req_id_to_index={n: i for i, n in enumerate(names)}, sampled_token_ids=sampled
        )
        self.clock.ns += 20_000_000 + 50_000 * output.total_num_scheduled_tokens
        start = time.perf_counter_ns()
        scheduler.update_from_output(output, result)
        return spent + time.perf_counter_ns() - start

    def renew(self) -> None:
        """Keep one long prompt under way."""
        request = self.scheduler.requests.get(self.long)
        if request is None or request.num_tokens - request.num_computed_tokens <= 2 * CHUNK:
            self.scheduler.finish_requests(self.long, RequestStatus.FINISHED_ABORTED)
            self.step()
            self.long = self.add(PROMPT, 1)
            self.step()


def measure(decodes: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Paired step times at one batch size."""
    config = make_config(
        folder,
        budget=decodes + CHUNK,
        max_seqs=decodes + 2,
        max_model_len=16_384,
        long_prefill_token_threshold=0,
    )
    config.model_config.max_model_len = 200_000
    arms = {name: Arm(name, config, decodes, VirtualClock()) for name in ARMS}
    times: dict[str, list[int]] = {name: [] for name in ARMS}
    gc.collect()
    gc.disable()
    for turn in range(rounds):
        for arm in arms.values():
            arm.renew()
        for name in list(ARMS) if turn % 2 else reversed(list(ARMS)):
            times[name].append(arms[name].step())
        if turn % 50 == 0:
            gc.collect()
            print(f"\r{decodes} decodes: round {turn} of {rounds} ", end="", file=sys.stderr, flush=True)
    gc.enable()
    for arm in arms.values():
        if arm.scheduler is not arms["stock"].scheduler:
            arm.scheduler._stop()
    found: dict[str, Any] = {"decodes": decodes, "rounds": rounds}
    for name in ARMS:
        found[f"{name}_ms"] = round(statistics.median(times[name]) / 1e6, 3)
    for name in ("vllm", "sarathi", "page"):
        ratios = sorted(b / a for a, b in zip(times["stock"], times[name], strict=True))
        extra = sorted(b - a for a, b in zip(times["stock"], times[name], strict=True))
        found[f"{name}_ratio"] = round(statistics.median(ratios), 4)
        found[f"{name}_ratio_quartiles"] = [round(ratios[len(ratios) * q // 4], 4) for q in (1, 3)]
        found[f"{name}_extra_us"] = round(statistics.median(extra) / 1e3, 1)
    return found


def main() -> None:
    """Print a table; write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for decodes in (1, 64, 256):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(decodes, options.rounds, Path(folder)))
    print(
        "\n decodes   stock ms   vllm     sarathi     page   (median of paired ratios, [quartiles], extra us)"
    )
    for row in rows:
        cells = [
            f"{row[f'{arm}_ratio']:.3f} {row[f'{arm}_ratio_quartiles']} {row[f'{arm}_extra_us']:+.0f} us"
            for arm in ("vllm", "sarathi", "page")
        ]
        print(f"{row['decodes']:8d} {row['stock_ms']:10.3f}   {'   '.join(cells)}")
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
