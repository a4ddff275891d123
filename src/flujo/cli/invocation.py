"""One invocation of the command line: its global options and its project."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flujo.cli.terminal import Terminal
from flujo.governance import log_lines as log_lines  # the root command writes the log of its invocation

if TYPE_CHECKING:
    import typer

    from flujo.services.project.project import Project


@dataclass(frozen=True)
class Invocation:
    """The global options; a command gets them with `Invocation.of(ctx)`."""

    terminal: Terminal = field(default_factory=Terminal)
    folder: Path = field(default_factory=Path.cwd)
    environment: str = ""
    debug: bool = False

    @classmethod
    def of(cls, ctx: typer.Context) -> Invocation:
        """Return the invocation that the root command stored in the context."""
        return ctx.find_object(cls) or cls()

    @cached_property
    def project(self) -> Project:
        """The project that contains the folder.

        Raises:
            SettingsError: its settings are not valid.
        """
        from flujo.services.project.project import find_project

        return find_project(self.folder, self.environment)
