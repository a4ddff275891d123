"""One invocation of the command line: its global options and its project."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo.cli.json_fields import FIELDS_CHOSEN, require_known
from flujo.cli.terminal import Terminal
from flujo.governance import log_lines as log_lines  # the root command writes the log of its invocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

    from flujo.services.project.project import Project


@dataclass(frozen=True)
class Invocation:
    """The global options; a command gets them with `Invocation.of(ctx)`."""

    terminal: Terminal = field(default_factory=Terminal)
    folder: Path = field(default_factory=Path.cwd)
    environment: str = ""
    debug: bool = False
    wants_json: bool = False
    """Whether results and errors are written as JSON."""

    @classmethod
    def of(cls, ctx: typer.Context) -> Invocation:
        """Return the invocation that the root command stored in the context.

        Raises:
            SettingsError: `--json=FIELDS` selects a field that the command of this context does not write.
        """
        if fields := ctx.meta.get(FIELDS_CHOSEN):
            require_known(name_of(ctx), fields)
        return ctx.find_object(cls) or cls()

    @cached_property
    def project(self) -> Project:
        """The project that contains the folder.

        Raises:
            SettingsError: its settings are not valid.
        """
        from flujo.services.project.project import find_project

        return find_project(self.folder, self.environment)


def isolated_worker(invocation: Invocation, words: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the start of the command line of a process that executes one run for a worker of this one."""
    return (
        *(sys.executable, "-P", "-m", "flujo", "--project", str(invocation.folder)),
        *(("--env", invocation.environment) if invocation.environment else ()),
        *("worker", "--json", "--concurrency", "1", "--grace", "0s"),
        *words,
        "--alone",
    )


def name_of(ctx: typer.Context) -> str:
    """Return the command of a context without its aliases: `tasks list`."""
    names: list[str] = []
    here: Any = ctx
    while here.parent is not None:
        names.insert(0, here.command.name)
        here = here.parent
    return " ".join(names)
