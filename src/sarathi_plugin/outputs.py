"""Where answers are written: never over what is read, errors of the disk as one sentence, before long work begins."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@contextlib.contextmanager
def writing(where: Path, advice: str = "choose another --out") -> Iterator[None]:
    """Errors of the disk as one sentence, which ends in the advice."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"Cannot write {where}: {error.strerror or error}; {advice}.") from error


def check_file(path: Path) -> None:
    """Raise ConfigError unless this file can be written; nothing is changed."""
    before = path.exists()
    with writing(path):
        path.open("a", encoding="utf-8").close()
        if not before:
            path.unlink()


def make_folder(path: Path) -> None:
    """Make a folder that files can be written to. Raises ConfigError."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()


def spare(inputs: Iterable[Path], out: Path) -> None:
    """Raises ConfigError when writing ``out`` would destroy an input, whatever name or link it goes by."""
    for path in inputs:
        if os.path.exists(path) and os.path.exists(out) and os.path.samefile(path, out):  # noqa: PTH110, PTH121 - Path's raise where a folder may not be read
            raise ConfigError(f"{out} is read here, and writing it would destroy it: choose another --out.")
