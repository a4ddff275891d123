"""`flujo trust`: trusts a project that belongs to another user."""

from pathlib import Path
from typing import Annotated

import typer

from flujo.cli import options
from flujo.cli.invocation import Invocation

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def trust(
    ctx: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A folder of the project. Default: this folder.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Trust a project that belongs to another user.

    From now on commands use its settings, code and database. Read them first.
    """
    from flujo.services.project.trust import project_root, record_trust

    invocation = Invocation.of(ctx)
    start = (folder or invocation.folder).resolve()
    root = project_root(start) if start.is_dir() else None
    if root is None:
        raise typer.BadParameter(f"there is no flujo.toml in {start} or above it", param_hint="DIR")
    file = record_trust(root)
    if as_json:
        invocation.terminal.json({"project": str(root), "file": str(file)})
    else:
        invocation.terminal.say(f"{root} is trusted; to undo this, remove its line from {file}")
