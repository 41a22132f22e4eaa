"""The two servers that the demo compares: same model, same flags, another scheduler."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.core import NS_PER_MS, NS_PER_S, SloClass
from sarathi_plugin.load.server import ServerSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sarathi_plugin.demo.models import DemoModel

MAX_MODEL_TOKENS = 8192
COMMON_FLAGS = (
    "--no-enable-prefix-caching",
    "--max-model-len",
    str(MAX_MODEL_TOKENS),
    "--max-num-seqs",
    "64",
)
COMMON_ENV = {"VLLM_CPU_KVCACHE_SPACE": "2"}

TBT_STEPS, SLACK_STEPS = 4, 20
"""D_d and TTFT slack as multiples of the lone decode step: fixed beforehand, alike for both arms."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the servers. flags: what sets it apart."""

    name: str
    title: str
    flags: tuple[str, ...] = ()


STOCK = Arm("stock", "stock vLLM")


def slo_for(decode_step_s: float) -> SloClass:
    """The promise both arms are held to on a machine with this lone decode step."""
    step_ns = round(decode_step_s * NS_PER_S)
    return SloClass("standard", TBT_STEPS * step_ns, SLACK_STEPS * step_ns)


def sarathi_arm(slo: SloClass, curve_file: Path) -> Arm:
    """The plugin's arm; writes its settings file next to the curve file."""
    config = curve_file.with_name("sarathi.yaml")
    # A JSON string is a YAML string, whatever characters the name has.
    config.write_text(f"prefill_curve: {json.dumps(curve_file.name)}\n", encoding="utf-8")
    flags = (
        *("--scheduler", "sarathi"),
        *("--sarathi-tbt-ms", f"{slo.tbt_ns / NS_PER_MS:.3f}"),
        *("--sarathi-ttft-slack-ms", f"{slo.ttft_slack_ns / NS_PER_MS:.3f}"),
        *("--sarathi-config", str(config)),
    )
    return Arm("sarathi", "--scheduler sarathi", flags)


def server_spec(arm: Arm, model: DemoModel, folder: Path, extra: Sequence[str] = ()) -> ServerSpec:
    """How to start an arm."""
    return ServerSpec(
        model=str(model.folder),
        name=model.name,
        log=folder / f"{arm.name}.log",
        args=(*model.flags, *COMMON_FLAGS, *extra, *arm.flags),
        env=COMMON_ENV,
    )
