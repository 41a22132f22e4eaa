"""The end of a bench: its tables on screen, and its numbers and tables in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def publish(name: str, summary: dict[str, Any], text: str, folder: Path = RESULTS) -> None:
    """Print ``text``; write it as NAME.md beside ``summary`` as NAME.json."""
    print(text)
    (folder / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text)
