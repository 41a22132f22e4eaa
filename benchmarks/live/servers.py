"""The servers of all arms: alike but for scheduler and budget, up together, one loaded at a time."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fidelity.live import ENGINE_ARGS, ENGINE_ENV

from live.units import CHATS, SESSIONS
from sarathi_plugin.config import load_curve
from sarathi_plugin.core import NS_PER_MS, NS_PER_S, SloClass
from sarathi_plugin.demo.arms import STOCK, sarathi_arm, server_spec, slo_for
from sarathi_plugin.demo.models import cache_folder, smollm2_model, tiny_model
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.curve import curve_lengths, measure_curve, probe, write_curve
from sarathi_plugin.load.dispatch import run_open_loop
from sarathi_plugin.load.machine import hardware
from sarathi_plugin.load.server import RunningServer, ServerSpec, serve
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.workload.kinds import make_trace
from sarathi_plugin.workload.synthetic import workload_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DEFAULT, BEST, STATIC, OURS = "stock-default", "stock-best", "sarathi-static", "sarathi"
ARMS = (DEFAULT, BEST, STATIC, OURS)
CURVE = "cpu-fast-model"
"""The prefill curve of the tiny model on a machine like this, shipped: frozen, the same for every arm."""

MIXED = "mixed-classes"
DOCUMENT_FACTOR, DOCUMENT_SLACK_NS = 4, 8 * NS_PER_S
"""What a document is promised: D_d as a multiple of a chat's, and its TTFT slack."""

WARM_UP_REQUESTS, WARM_UP_RATE = 8, 2.0
SMOLLM2_CURVE_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Promise:
    """What every arm is held to.

    slo: of the default class. curve: a name or a path, as the plugin's setting takes it. documents: of the other
    class of mixed traffic.
    """

    slo: SloClass
    curve: str
    documents: SloClass | None = None

    @property
    def targets(self) -> Targets:
        """For the client."""
        return Targets(self.slo, load_curve(self.curve), {slo.name: slo for slo in self.slos})

    @property
    def slos(self) -> tuple[SloClass, ...]:
        """All classes, the default one first."""
        return (self.slo, self.documents) if self.documents else (self.slo,)

    @property
    def key(self) -> tuple[float | str, ...]:
        """What identifies it in a unit: D_d and TTFT slack of each class in ms, and the digest of the curve."""
        times = (ns / NS_PER_MS for slo in self.slos for ns in (slo.tbt_ns, slo.ttft_slack_ns))
        return (*times, self.targets.curve.digest)

    @property
    def settings(self) -> dict[str, Any]:
        """The same for the plugin's configuration file."""
        classes = {
            slo.name: {"tbt_ms": slo.tbt_ns / NS_PER_MS, "ttft_slack_ms": slo.ttft_slack_ns / NS_PER_MS}
            for slo in self.slos
        }
        return {"prefill_curve": self.curve, "classes": classes, "default_class": self.slo.name}


def tiny_promise(tbt_ms: float, slack_ms: float, traffic: str) -> Promise:
    """The promise of the tiny model's runs; what documents are promised among chats is a multiple of it."""
    tbt_ns, slack_ns = round(tbt_ms * NS_PER_MS), round(slack_ms * NS_PER_MS)
    if traffic != MIXED:
        return Promise(SloClass("standard", tbt_ns, slack_ns), CURVE)
    documents = SloClass("batch", DOCUMENT_FACTOR * tbt_ns, DOCUMENT_SLACK_NS)
    return Promise(SloClass("interactive", tbt_ns, slack_ns), CURVE, documents)


def tiny_spec(arm: str, promise: Promise, best_budget: int, out: Path, traffic: str) -> ServerSpec:
    """How to start an arm on the tiny model."""
    args = ENGINE_ARGS
    if traffic in SESSIONS:
        args += ("--enable-prefix-caching",)  # the last one counts
    if arm == BEST:
        args += ("--max-num-batched-tokens", str(best_budget))
    if arm in (STATIC, OURS):
        config = out / "sarathi.yaml"
        config.write_text(json.dumps(promise.settings) + "\n")  # JSON is YAML
        args += ("--scheduler", arm, "--sarathi-config", str(config))
    model = tiny_model(cache_folder())
    return ServerSpec(str(model.folder), model.name, out / f"{arm}.log", args, ENGINE_ENV)


@contextlib.contextmanager
def all_up(specs: Mapping[str, ServerSpec], promise: Promise) -> Iterator[dict[str, RunningServer]]:
    """Every server, warmed up. Raises ServerError when one does not come up."""
    with contextlib.ExitStack() as stack:
        servers = {}
        for arm, spec in specs.items():
            print(f"starting {arm}", file=sys.stderr, flush=True)
            servers[arm] = stack.enter_context(serve(spec))
            warm_up(servers[arm], promise)
        yield servers


def warm_up(server: RunningServer, promise: Promise) -> None:
    """First steps of a server are slow: they are nobody's."""
    trace = make_trace(CHATS, rate=WARM_UP_RATE, count=WARM_UP_REQUESTS, seed=10**6)
    client = StreamingClient(Endpoint(server.url, server.name), promise.targets)
    run_open_loop(workload_of(trace.resized(0.1, 0.1), 10**6), client.send)


def smollm2_promise(out: Path, seed: int) -> Promise:
    """From an idle stock server, measured once and kept: D_d is four of its lone decode steps."""
    curve_path, step_path = (out / "curve.json").resolve(), out / "decode-step.json"
    if not (curve_path.is_file() and step_path.is_file()):
        model = smollm2_model(cache_folder())
        with serve(bound(server_spec(STOCK, model, out))) as stock:
            lone = probe(stock.url, stock.name, seed)
            lone.decode_gaps_s(8)
            gaps = sorted(lone.decode_gaps_s())
            lengths = curve_lengths(SMOLLM2_CURVE_TOKENS)
            write_curve(
                curve_path,
                measure_curve(lone, lengths, repeats=2, model=model.title, hardware=hardware()),
            )
            step_path.write_text(json.dumps({"decode_step_s": gaps[len(gaps) // 2]}) + "\n")
    return Promise(slo_for(json.loads(step_path.read_text())["decode_step_s"]), str(curve_path))


def smollm2_specs(out: Path, promise: Promise) -> dict[str, ServerSpec]:
    """Stock and ``sarathi`` on the real model."""
    model = smollm2_model(cache_folder())
    ours = sarathi_arm(promise.slo, (out / "curve.json").resolve())
    return {
        DEFAULT: bound(server_spec(STOCK, model, out)),
        OURS: bound(server_spec(ours, model, out)),
    }


def bound(spec: ServerSpec) -> ServerSpec:
    """The same, with the engine on the core that the tiny model's engines have."""
    return replace(spec, env={**spec.env, **ENGINE_ENV})
