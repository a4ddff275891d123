"""`flujo init`: writes a working project from a template and names the commands to try it."""

from pathlib import Path
from typing import Annotated

import typer

from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.exceptions import SettingsError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def init(
    ctx: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The project's folder; created if missing.", show_default=False),
    ] = Path(),
    name: Annotated[str, typer.Option(help="The project's name. [default: the folder's name]")] = "",
    template: Annotated[
        str, typer.Option(metavar="NAME", help="hello, agent, hitl, batch or service.")
    ] = "hello",
    listed: Annotated[bool, typer.Option("--list", help="List the templates and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: write JSON.")] = False,
) -> None:
    """Write a working project into a folder."""
    from flujo.services.admin.scaffold import TEMPLATES, scaffold

    invocation = Invocation.of(ctx)
    terminal = invocation.terminal
    if as_json and not listed:
        raise SettingsError("`--json` writes the list of templates", hint="add `--list`")
    if listed:
        rows = [{"name": each.name, "about": each.about} for each in TEMPLATES.values()]
        if as_json:
            terminal.json(rows)
        else:
            terminal.table({"name": "TEMPLATE", "about": "WHAT IT SHOWS"}, rows)
        return
    made = scaffold(invocation.folder / folder, name, template)
    for path in made.written:
        terminal.say(f"  {terminal.styled('wrote', 'green', to=terminal.err)} {folder / path}")
    for path in made.kept:
        terminal.say(f"  {terminal.styled('kept', 'dim', to=terminal.err)}  {folder / path}")
    if folder != Path():
        terminal.next(command("cd", str(folder)))
    for each, why in TEMPLATES[template].commands:
        terminal.next(each, why)
