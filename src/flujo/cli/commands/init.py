"""`flujo init`: writes a working project and names the command to try it."""

from pathlib import Path
from typing import Annotated

import typer

from flujo.cli.invocation import Invocation
from flujo.domain.commands import command

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def init(
    ctx: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The project's folder; created if missing.", show_default=False),
    ] = Path(),
    name: Annotated[str, typer.Option(help="The project's name. [default: the folder's name]")] = "",
) -> None:
    """Write a working project into a folder."""
    from flujo.services.admin.scaffold import scaffold

    invocation = Invocation.of(ctx)
    terminal = invocation.terminal
    made = scaffold(invocation.folder / folder, name)
    for path in made.written:
        terminal.say(f"  {terminal.styled('wrote', 'green', to=terminal.err)} {folder / path}")
    for path in made.kept:
        terminal.say(f"  {terminal.styled('kept', 'dim', to=terminal.err)}  {folder / path}")
    there = () if folder == Path() else ("-C", str(folder))
    terminal.next(command("flujo", *there, "run", "hello", "--input", "Ada"))
