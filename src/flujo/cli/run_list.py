"""A list of runs: its conditions, its pages, and the command that lists the next one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.cli.listing import COLUMNS, next_for, show_runs
from flujo.cli.run_command import in_workspace
from flujo.domain.commands import command
from flujo.domain.wording import plural, suggest
from flujo.exceptions import DatabaseMissing, SettingsError
from flujo.services.inspection.task_client import TaskClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.invocation import Invocation
    from flujo.cli.terminal import Terminal
    from flujo.services.inspection.tasks import Task, TaskConditions
    from flujo.services.workspace import Workspace

_WATCH_S = 2.0


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list, and how many runs come after it."""

    tasks: Sequence[Task]
    rest: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of runs as a command shows it."""

    conditions: TaskConditions
    limit: int = 100
    cursor: str | None = None
    columns: Sequence[str] | None = None
    words: Sequence[str] = ("flujo", "tasks", "list")
    """The command that lists these runs; with a cursor it lists the next page."""
    nothing: str = "no matching runs"

    def show(self, invocation: Invocation, *, as_json: bool) -> None:
        """Write a page of runs to stdout."""
        try:
            page: Page = in_workspace(invocation, self._page)
        except DatabaseMissing:
            if invocation.project.is_outside:
                raise
            page = Page([])
        self._write(invocation.terminal, page, as_json=as_json)

    def watch(self, invocation: Invocation, *, as_json: bool) -> None:
        """Write the page again whenever it changes, until Ctrl-C."""

        async def repeated(workspace: Workspace) -> None:
            before: Page | None = None
            while True:
                page = await self._page(workspace)
                if page != before:
                    invocation.terminal.clear()
                    self._write(invocation.terminal, page, as_json=as_json)
                before = page
                await asyncio.sleep(_WATCH_S)

        in_workspace(invocation, repeated)

    async def _page(self, workspace: Workspace) -> Page:
        client = TaskClient(workspace)
        here: TaskConditions = {**self.conditions, "cursor": self.cursor}
        tasks = await client.list_tasks(**here, limit=self.limit)
        if len(tasks) < self.limit:
            return Page(tasks)
        behind: TaskConditions = {**self.conditions, "cursor": tasks[-1].cursor}
        rest = await client.count(**behind)
        return Page(tasks, sum(rest.values()))

    def _write(self, terminal: Terminal, page: Page, *, as_json: bool) -> None:
        show_runs(terminal, page.tasks, as_json=as_json, columns=self.columns)
        if page.rest:
            terminal.say(f"{plural(len(page.tasks), 'run')} listed, {page.rest:,} more")
            terminal.next(command(*self.words, "--cursor", page.tasks[-1].cursor), "list the next runs")
        elif as_json:
            return
        elif page.tasks:
            first = page.tasks[0]
            terminal.next(next_for(first.run_id, str(first.display_status), first.error))
        else:
            terminal.say(self.nothing)


def read_columns(text: str | None) -> tuple[str, ...] | None:
    """Return the columns that `--columns` names; None for the usual ones.

    Raises:
        SettingsError: one is unknown.
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in COLUMNS:
            hint = suggest(name, COLUMNS, what="columns")
            raise SettingsError(f"--columns: {name!r} is not a column", hint=hint)
    return names
