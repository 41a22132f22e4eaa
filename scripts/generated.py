"""Rewrite what is generated from the code; with ``--check``, only say what is out of date.

Blocks in Markdown files between

    <!-- generated: sarathi_plugin.some.module -->
    <!-- end of generated -->

hold the output of ``python -m sarathi_plugin.some.module``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"(?P<start><!-- generated: (?P<module>sarathi_plugin[\w.]*) -->\n).*?(?P<end><!-- end of generated -->)",
    re.DOTALL,
)


@cache
def output_of(module: str) -> str:
    """What ``python -m module`` prints."""
    argv = [sys.executable, "-m", module]
    return subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def with_blocks(text: str) -> str:
    """A Markdown text with its generated blocks made anew."""
    return BLOCK.sub(
        lambda match: f"{match['start']}\n{output_of(match['module']).strip()}\n\n{match['end']}", text
    )


def wanted() -> dict[Path, str]:
    """Every file that has a generated part, with the content it should have."""
    files = {}
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        text = path.read_text(encoding="utf-8")
        if BLOCK.search(text):
            files[path] = with_blocks(text)
    return files


def settle(files: Mapping[Path, str]) -> int:
    """Write these files where they differ; with ``--check`` say so instead, and return 1 when any does."""
    check = "--check" in sys.argv[1:]
    stale = {
        path: text
        for path, text in files.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        print(f"{path.relative_to(ROOT)}: {'out of date, run: make generate' if check else 'written'}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(settle(wanted()))
