"""Where the files of ``monitoring/`` are: inside the installed package, or at the top of a checkout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarathi_plugin.config import ConfigError
from sarathi_plugin.outputs import writing

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = Path(__file__).resolve().parents[1]
DASHBOARDS = ("fluidity", "scheduler", "compare")


def folder() -> Path:
    """The folder. Raises ConfigError when it is in neither place."""
    for found in (PACKAGE / "data" / "monitoring", PACKAGE.parents[1] / "monitoring"):
        if (found / "compose.yml").is_file():
            return found
    raise ConfigError(
        "The monitoring files are not in this installation; install the wheel of sarathi-plugin again."
    )


def dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards by name, as Grafana takes them."""
    place = folder() / "grafana" / "dashboards"
    return {name: json.loads((place / f"{name}.json").read_text(encoding="utf-8")) for name in DASHBOARDS}


def export(out: Path, say: Callable[[str], None]) -> None:
    """Copy everything but the rules' tests. Raises ConfigError."""
    source = folder()
    with writing(out, "choose another folder"):
        if out.exists() and any(out.iterdir()):
            raise ConfigError(f"{out} is not empty: name a folder that is, or that does not exist.")
        shutil.copytree(source, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tests"))
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        say(f"wrote {path}")
