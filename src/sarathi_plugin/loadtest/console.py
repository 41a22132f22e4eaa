"""The live table on a terminal; on anything else a line now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live as Screen
from rich.table import Table
from rich.text import Text

from sarathi_plugin.loadtest.faults import fault_kind
from sarathi_plugin.loadtest.live import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sarathi_plugin.loadtest.live import Live
    from sarathi_plugin.loadtest.result import Result

LINE_EVERY_S = 10.0
LONGEST = 300
"""Characters of a server's own words that are shown."""


class Display:
    """Use as a context manager; call ``show`` as often as you like."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._screen: Screen | None = None
        self._line_s = 0.0

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._screen = Screen(console=self.console, auto_refresh=False, transient=True)
            self._screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen is not None:
            self._screen.stop()

    def show(self, live: Live, state: Mapping[str, Any], at_s: float) -> None:
        """Draw how far the run is, ``at_s`` seconds after its start."""
        of = f" of {state['requests']}" if state["requests"] else ""
        head = (
            f"{max(at_s, 0):.0f} s: {state['sent']}{of} sent, {state['ended']} ended, "
            f"{state['sent'] - state['ended']} under way, overdue: {live.overdue_text()}, "
            f"{counted(state['workers'], 'worker')}"
        )
        if self._screen is not None:
            self._screen.update(Group(Text(head), table(live)), refresh=True)
        elif at_s - self._line_s >= LINE_EVERY_S:
            self._line_s = at_s
            rows = "; ".join(
                f"{r['class']}: fluidity {r['fluidity']}, {COLUMNS['ttft']} {r['ttft']}" for r in live.rows()
            )
            self.console.print(f"{head}. {rows}", soft_wrap=True)


def table(live: Live) -> Table:
    """The figures by SLO class."""
    drawn = Table(box=None, pad_edge=False)
    for name, title in COLUMNS.items():
        drawn.add_column(title, justify="left" if name == "class" else "right")
    for row in live.rows():
        drawn.add_row(*row.values())
    return drawn


def closing(result: Result) -> list[str]:
    """The last lines of a run: figures, faults, verdict."""
    f = result.figures
    lines = [
        f"{f['requests']:.0f} requests, {f['errors']:.0f} failed; fluidity-index {f['fluidity_index']:.4f}, "
        f"{f['fluidity_share']:.1%} fluid, {f['slo_share']:.1%} within SLO",
        "P50 / P90 / P99 from the intended time: TTFT " + _three(f, "ttft") + "; E2E " + _three(f, "e2e"),
        "                from the sending:       TTFT "
        + _three(f, "ttft_sent")
        + "; E2E "
        + _three(f, "e2e_sent"),
        "                time between tokens "
        + _three(f, "tbt")
        + f"; {f['stalls']:.0f} stalls, {f['stall_s']:.2f} s in all",
        f"sent late: {1000 * (f['dispatch_lag_p99_s'] or 0):.1f} ms (P99); {result.resent} sent twice; busiest worker "
        f"{max((client.cpu for client in result.clients), default=0.0):.0%} of a core; "
        f"{f['output_tokens_per_s']:.0f} output tokens/s",
    ]
    faults = result.as_json()["faults"]
    if faults:
        lines.append("faults: " + ", ".join(f"{count} {kind}" for kind, count in faults.items()))
        first = next((t.error for t in result.timelines if fault_kind(t) not in ("", "stopped", "lost")), "")
        if first:
            lines.append("the first of them: " + " ".join(first.split())[:LONGEST])
    lines += [f"INVALID: {reason}" for reason in result.invalid]
    lines += [f"failed: {reason}" for reason in result.broken]
    return lines


def counted(number: int, noun: str) -> str:
    """A number and what it counts: ``1 worker``, ``2 workers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _three(figures: Mapping[str, float | None], name: str) -> str:
    """P50 / P90 / P99 in milliseconds."""
    values = [figures[f"{name}_p{p}_s"] for p in (50, 90, 99)]
    if values[0] is None:
        return "-"
    return " / ".join(f"{1000 * (value or 0):.0f}" for value in values) + " ms"
