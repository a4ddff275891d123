"""One call of the command line: what its global options say, and the project it works in."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flujo.cli.terminal import Terminal

if TYPE_CHECKING:
    import typer

    from flujo.services.project.project import Project


@dataclass(frozen=True)
class Invocation:
    """The global options. A command gets it by `Invocation.of(ctx)`."""

    terminal: Terminal = field(default_factory=Terminal)
    folder: Path = field(default_factory=Path.cwd)
    environment: str = ""
    debug: bool = False

    @classmethod
    def of(cls, ctx: typer.Context) -> Invocation:
        """Return what the main command has put into the context."""
        return ctx.find_object(cls) or cls()

    @cached_property
    def project(self) -> Project:
        """The project that the folder lies in.

        Raises:
            SettingsError: its settings cannot be used.
        """
        from flujo.services.project.project import find_project

        return find_project(self.folder, self.environment)
