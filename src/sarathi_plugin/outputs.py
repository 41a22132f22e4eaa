"""What a command writes must not be what it reads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def spare(inputs: Iterable[Path], out: Path) -> None:
    """Raises ConfigError when writing ``out`` would destroy an input, whatever name or link it goes by."""
    for path in inputs:
        if os.path.exists(path) and os.path.exists(out) and os.path.samefile(path, out):  # noqa: PTH110, PTH121 - Path's raise where a folder may not be read
            raise ConfigError(f"{out} is read here, and writing it would destroy it: choose another --out.")
