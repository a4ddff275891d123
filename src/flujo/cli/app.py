"""The root command: global options and lazily imported commands."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from flujo import __version__
from flujo.cli.examples import epilog
from flujo.cli.json_fields import FIELDS_CHOSEN, WANTS_EVENTS, WANTS_JSON
from flujo.cli.root_help import ALIASES, COMMANDS
from flujo.cli.streams import results_apart

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOISTED = ("--debug", "--no-color")
"""Global flags that are also accepted after the command."""

_FIELDS = "--json="
"""Begins the option that selects fields. They belong to its word, so that it takes no other argument."""


def _writes_json(words: list[str]) -> bool:
    """Return whether `--format json` is among the words."""
    return "--format=json" in words or ("--format", "json") in pairwise(words)


class LazyGroup(TyperGroup):
    """A command group that imports a command when it is invoked."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        lines = (item for section in COMMANDS.values() for item in section.items())
        self.commands = {name: TyperCommand(name, help=line) for name, line in lines}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - typer's signature
        """Import the command and return it."""
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        return imported(cmd_name) if cmd_name in self.commands else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - typer's signature
        """List the commands by section; imports none."""
        for section, commands in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl(list(commands.items()))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move global flags before `--` to the front, and take the fields from `--json=FIELDS`."""
        end = args.index("--") if "--" in args else len(args)
        words, after = args[:end], args[end:]
        fields = [word.removeprefix(_FIELDS) for word in words if word.startswith(_FIELDS)]
        words = ["--json" if word.startswith(_FIELDS) else word for word in words]
        ctx.meta[WANTS_EVENTS] = "--events" in words
        ctx.meta[WANTS_JSON] = "--json" in words or ctx.meta[WANTS_EVENTS] or _writes_json(words)
        ctx.meta[FIELDS_CHOSEN] = (
            tuple(name.strip() for name in ",".join(fields).split(",")) if fields else ()
        )
        flags = [word for word in words if word in _HOISTED]
        rest = [word for word in words if word not in _HOISTED]
        return super().parse_args(ctx, [*flags, *rest, *after])

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Parse the global options."""
        with _safe_usage_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; report its error and exit with the error's code."""
        try:
            with _safe_usage_errors():
                return super().invoke(ctx)
        except (typer.TyperException, typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - every error becomes a message
            raise typer.Exit(_errors().report(error, ctx)) from None


@cache
def imported(name: str) -> Any:
    """Import and build a command with its examples; a process that calls several builds each once."""
    module = importlib.import_module(f"flujo.cli.commands.{name.replace('-', '_')}")
    command = typer.main.get_command(module.app)
    command.name = name
    inner = getattr(command, "commands", {}).items()
    for path, each in [(name, command), *((f"{name} {word}", each) for word, each in inner)]:
        each.epilog = epilog(path)
        if each.callback is not None:
            each.callback = results_apart(each.callback)
    return command


def _errors() -> Any:
    from flujo.cli import errors

    return errors


@contextmanager
def _safe_usage_errors() -> Iterator[None]:
    """Make an error safe that typer prints: it quotes arguments."""
    try:
        yield
    except typer.TyperException as error:
        _errors().report_usage(error)
        raise


HELP = {"help_option_names": ["-h", "--help"]}
"""The options that show help, for every command."""

app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=HELP)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flujo {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Option("-C", "--project", metavar="DIR", help="Work in this folder.")
    ] = Path(),
    environment: Annotated[
        str, typer.Option("--env", metavar="NAME", help="Use [env.NAME] of flujo.toml.")
    ] = "",
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="Disable colour (also: NO_COLOR).")] = False,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(
            "--log-format", metavar="FORMAT", help="Write log lines: json or text (levels: FLUJO_LOG)."
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback prints
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Durable AI pipelines: runs survive crashes and resume without repeating completed steps.

    `flujo init` writes a first project; `-h` behind a command explains it.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        return
    from flujo.cli import invocation, terminal  # redaction would take a quarter of `--help`

    no_color = no_color or bool(os.environ.get("NO_COLOR"))  # noqa: TID251 - a terminal convention
    shown = terminal.Terminal(
        color=not no_color,
        logs_messages=log_format == "json",
        writes_events=ctx.meta.get(WANTS_EVENTS, False),
        fields=ctx.meta.get(FIELDS_CHOSEN, ()),
    )
    levels = os.environ.get("FLUJO_LOG", "")  # noqa: TID251 - the settings would take longer than `flujo ls`
    if log_format or levels:
        invocation.log_lines.configure(log_format or "text", levels, lambda: sys.stderr)
    ctx.obj = invocation.Invocation(shown, folder, environment, debug, ctx.meta.get(WANTS_JSON, False))
