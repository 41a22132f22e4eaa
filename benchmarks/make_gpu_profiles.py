"""Builds the shipped GPU step-time profiles from a folder of Vidur's operator tables.

    python benchmarks/make_gpu_profiles.py FOLDER [--out src/sarathi_plugin/data/step_profiles]

FOLDER holds, from microsoft/vidur (data/profiling): a100_llama3_8b_mlp.csv, a100_codellama_34b_mlp.csv and
h100_llama2_7b_mlp.csv (compute/DEVICE/MODEL/mlp.csv), a100_pairwise_nvlink_all_reduce.csv
(network/a100_pairwise_nvlink/all_reduce.csv), and a100_attention_34b_tp2.csv (a100/attention.csv of commit e2d00e9:
later ones carry no attention tables).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sarathi_plugin.config import ConfigError
from sarathi_plugin.steptime.profile import SHIPPED, ModelFacts, StepTimeProfile, save_profile
from sarathi_plugin.steptime.vidur import import_tables, read_attention

LLAMA_3_8B = ModelFacts(
    name="meta-llama/Meta-Llama-3-8B",
    layers=32,
    hidden_size=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    max_model_len=8192,
    weight_bytes=16_060_000_000,
)
CODELLAMA_34B = ModelFacts(
    name="codellama/CodeLlama-34b-Instruct-hf",
    layers=48,
    hidden_size=8192,
    heads=64,
    kv_heads=8,
    head_dim=128,
    max_model_len=16384,
    weight_bytes=67_490_000_000,
)
LLAMA_2_7B = ModelFacts(
    name="meta-llama/Llama-2-7b-hf",
    layers=32,
    hidden_size=4096,
    heads=32,
    kv_heads=32,
    head_dim=128,
    max_model_len=4096,
    weight_bytes=13_480_000_000,
)
PROFILES = {
    "a100-llama-3-8b-tp1": ("a100", LLAMA_3_8B, 1, "a100_llama3_8b_mlp.csv"),
    "a100-llama-3-8b-tp2": ("a100", LLAMA_3_8B, 2, "a100_llama3_8b_mlp.csv"),
    "a100-llama-3-8b-tp4": ("a100", LLAMA_3_8B, 4, "a100_llama3_8b_mlp.csv"),
    "a100-codellama-34b-tp2": ("a100", CODELLAMA_34B, 2, "a100_codellama_34b_mlp.csv"),
    "h100-llama-2-7b": ("h100", LLAMA_2_7B, 1, "h100_llama2_7b_mlp.csv"),
}
HARDWARE = {"a100": "NVIDIA A100 80GB", "h100": "NVIDIA H100 80GB"}
MEMORY_BYTES = 80_000_000_000


def build(name: str, folder: Path) -> StepTimeProfile:
    """One shipped profile. Raises ConfigError on tables that cannot be used."""
    device, model, devices, table = PROFILES[name]
    attention = read_attention(folder / "a100_attention_34b_tp2.csv")
    return import_tables(
        folder / table,
        name=name,
        model=model,
        hardware=HARDWARE[device]
        + (f", {devices} of a node with NVLink between pairs" if devices > 1 else ""),
        memory_bytes=MEMORY_BYTES,
        attention=attention if device == "a100" else attention.on(device),
        tensor_parallel=devices,
        all_reduce_csv=folder / "a100_pairwise_nvlink_all_reduce.csv" if devices > 1 else None,
    )


def main() -> None:
    """Build and write all of them."""
    parser = argparse.ArgumentParser(description="Build the shipped GPU step-time profiles.")
    parser.add_argument("folder", type=Path, help="folder of operator tables")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder to write to")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in PROFILES:
        try:
            profile = build(name, given.folder)
        except ConfigError as error:
            sys.exit(str(error))
        path = given.out / f"{name}.json"
        save_profile(profile, path)
        print(f"{path.name}: {path.stat().st_size:,} bytes; {profile.provenance.fitted}")


if __name__ == "__main__":
    main()
