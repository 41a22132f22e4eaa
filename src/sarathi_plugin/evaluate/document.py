"""What a report consists of, and its two forms: one self-contained HTML page, and Markdown with pictures beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from markupsafe import Markup

NAME = 24
"""Characters of what is taken for a name."""

Mark = Literal["", "pass", "fail", "none"]


@dataclass(frozen=True, slots=True)
class Table:
    """head and rows of texts. marks: of each row; caption above it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marks: Sequence[Mark] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture as SVG that takes its ink from the page. name: of its file beside the Markdown."""

    name: str
    svg: str
    caption: str


Block = str | Table | Chart


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it; a string is a paragraph."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Report:
    """answer: one sentence, first of all. notes: what limits it."""

    title: str
    answer: str
    notes: Sequence[str] = ()
    sections: Sequence[Section] = field(default_factory=tuple)

    def html(self) -> str:
        """One page, nothing loaded from anywhere."""
        import jinja2

        template = files("sarathi_plugin.evaluate").joinpath("report.html.j2").read_text(encoding="utf-8")
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        environment.filters["together"] = _together
        return environment.from_string(template).render(report=self, kind=_kind, cell=_cell)

    def markdown(self, pictures: str) -> str:
        """The same as Markdown; charts are files in the folder ``pictures``."""
        lines = [f"# {self.title}", "", f"**{self.answer}**", ""]
        lines += [f"- {note}" for note in self.notes]
        for section in self.sections:
            lines += ["", f"## {section.title}"]
            for block in section.blocks:
                lines += ["", *_lines(block, pictures)]
        return "\n".join(lines) + "\n"

    def charts(self) -> list[Chart]:
        """All pictures."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Chart)]

    def write(self, folder: Path, stem: str = "report") -> None:
        """``stem``.html, ``stem``.md and its pictures in a folder. Raises OSError."""
        pictures = folder / f"{stem}-pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        for chart in self.charts():
            (pictures / f"{chart.name}.svg").write_text(_alone(chart.svg), encoding="utf-8")
        (folder / f"{stem}.html").write_text(self.html(), encoding="utf-8")
        (folder / f"{stem}.md").write_text(self.markdown(pictures.name), encoding="utf-8")


def _kind(block: Block) -> str:
    return "text" if isinstance(block, str) else type(block).__name__.lower()


def _together(text: str) -> str:
    """A number and its unit stay on one line."""
    return re.sub(r"(?<=\d) (?=(?:ms|s|%|points)(?:\W|$))", "\N{NO-BREAK SPACE}", text)


def _cell(text: str) -> Markup:
    """A cell of a table: names are not broken, and the interval of a figure stands below it in small print."""
    from markupsafe import Markup

    whole = _together(text)
    if found := re.fullmatch(r"([^()]{1,40}) (\([^()]+\))", whole):
        return Markup("<td>{}<small>{}</small></td>").format(*found.groups())
    kind = "name" if len(text) <= NAME and " " not in text else "text" if len(text) > 2 * NAME else ""
    return Markup('<td class="{}">{}</td>').format(kind, whole)


def _lines(block: Block, pictures: str) -> list[str]:
    if isinstance(block, str):
        return [block]
    if isinstance(block, Chart):
        return [f"![{block.caption}]({pictures}/{block.name}.svg)", "", f"*{block.caption}*"]
    head = ["| " + " | ".join(block.head) + " |", "| " + " | ".join("---" for _ in block.head) + " |"]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in block.rows]
    return [*([block.caption, ""] if block.caption else []), *head, *rows]


def _alone(svg: str) -> str:
    """A picture outside of a page has no page to take its ink from: black on white."""
    return re.sub(r"<svg ", '<svg style="color:#1f2933;background:#fff" ', svg, count=1)
