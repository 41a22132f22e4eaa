"""This machine: in a few words, and which of its cores are the client's."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


def hardware() -> str:
    """Processor, and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            name = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def check_cores(cores: Collection[int]) -> None:
    """Raise ConfigError for cores that this process may not use."""
    if missing := set(cores) - os.sched_getaffinity(0):
        raise ConfigError(f"client_cores: this process may not use core {min(missing)}; name others.")


@contextlib.contextmanager
def kept_to(cores: Collection[int]) -> Iterator[None]:
    """Bind this process, and with it the front ends of servers that it starts, to these cores, if any are named.

    An engine on the CPU binds itself, but shares its core with whatever else runs there. Raises ConfigError as
    ``check_cores`` does.
    """
    if not cores:
        yield
        return
    check_cores(cores)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
