"""Download progress: a bar on a terminal, a line every 10 % elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from flujo.domain.wording import size
from flujo.governance.screen import visible_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from flujo.cli.terminal import Terminal


class Download:
    """A progress callback: called with the bytes done and the bytes in total."""

    def __init__(self, terminal: Terminal, name: str) -> None:
        self._terminal = terminal
        self._name = name
        self._tenth = -1
        self._bar: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show the progress."""
        if self._terminal.err.isatty():
            bar = self._bar or self._started(total)
            bar.update(bar.task_ids[0], completed=done, total=total)
            return
        tenth = done * 10 // total if total else 0
        if tenth > self._tenth:
            self._tenth = tenth
            self._terminal.say(f"downloading {self._name}: {size(done)} of {size(total)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _started(self, total: int) -> Progress:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        name = TextColumn("{task.description}", markup=False)
        columns = (name, BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._terminal.console(), transient=True)
        self._bar.add_task(visible_line(f"downloading {self._name}"), total=total)
        self._bar.start()
        return self._bar
