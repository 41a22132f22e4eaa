"""What the demo shows while it runs: the stage it is in, with its clock, and how far a load is."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sarathi_plugin.load.dispatch import Progress as LoadProgress


class Screen:
    """A line of progress at the bottom, finished stages above it. Use as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=self.console, transient=True)
        self._task: TaskID | None = None

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, soft_wrap=True, markup=False)

    def stage(self, text: str) -> TaskID:
        """What is being done now; replaces the stage before. Written as a line where there is no terminal."""
        self._end()
        self._task = self._progress.add_task(text, total=None, counts="")
        if not self.console.is_terminal:
            self.say(f"  {text} ...")
        return self._task

    @contextlib.contextmanager
    def load(self, title: str, total: int) -> Iterator[Callable[[LoadProgress], None]]:
        """A bar for a load of so many requests; yields what the dispatcher calls."""
        task = self.stage(f"Load on {title}: {total} requests")
        self._progress.update(task, total=total)

        def show(now: LoadProgress) -> None:
            failed = f", {now.failed} failed" if now.failed else ""
            counts = f"{now.started} sent, {now.finished} answered{failed}"
            self._progress.update(task, completed=now.finished, counts=counts)

        yield show

    def _end(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
