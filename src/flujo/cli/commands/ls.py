"""`flujo ls`: lists the steps, agents, callables and imports of blueprints; imports no callables."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Only(StrEnum):
    """The kinds of items that can be listed."""

    STEP = "step"
    AGENT = "agent"
    CALLABLE = "callable"
    IMPORT = "import"


@app.command()
def ls(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS",
            help="Blueprints or folders. [default: the whole project]",
            show_default=False,
            autocompletion=completion.blueprints,
        ),
    ] = None,
    only: Annotated[
        list[Only] | None, typer.Option("--only", help="List only this kind; repeatable.", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the steps, agents, callables and imports of blueprints."""
    from flujo.services.checks.validation import compiled_or_refused
    from flujo.services.inspection.inventory import inventory

    invocation = Invocation.of(ctx)
    project, terminal = invocation.project, invocation.terminal
    given = [found for text in paths or () for found in project.locate_all(text, invocation.folder)]
    chosen = given if paths else project.blueprint_paths()
    items = [
        item
        for path in chosen
        for item in inventory(path, compiled_or_refused(project, path))
        if not only or item.what in only
    ]
    if as_json:
        terminal.json([asdict(item) for item in items])
        return
    columns = {"blueprint": "BLUEPRINT", "what": "WHAT", "name": "NAME", "detail": "DOES"}
    if len(chosen) == 1:
        del columns["blueprint"]
    if items:
        terminal.table(columns, [asdict(item) for item in items])
    else:
        terminal.say("nothing to list")
        terminal.next(command("flujo", "init"), "create a project with a first blueprint")
