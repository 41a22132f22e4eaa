"""The page's files: three of ours in the package, and the charting library in its own."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}
LIBRARY = "plotly.min.js"
OURS = ("page.js", "page.css")
LARGE = 100_000
"""Bytes above which a file is also kept compressed: the library is, once, for viewers behind a thin line."""


@dataclass(frozen=True)
class Asset:
    """A file to send. packed: the same in gzip, or None."""

    content: bytes
    packed: bytes | None
    kind: str
    tag: str


def library_path() -> Path | None:
    """Where the installed plotly keeps its JavaScript; None without plotly. Nothing of it is imported."""
    spec = importlib.util.find_spec("plotly")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "package_data" / LIBRARY
        if path.is_file():
            return path
    return None


@cache
def asset(name: str) -> Asset | None:
    """A file of the page by name; None when there is none."""
    path = library_path() if name == LIBRARY else STATIC / name if name in OURS else None
    if path is None:
        return None
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    packed = gzip.compress(content, 6) if len(content) > LARGE else None
    return Asset(content, packed, TYPES[path.suffix], tag)


def html(name: str) -> str:
    """One of our pages."""
    return (STATIC / name).read_text(encoding="utf-8")
