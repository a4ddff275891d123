"""`flujo types`: writes the schemas of the Python types that blueprints use to `schemas/`."""

from typing import Annotated

import typer

from flujo.cli import options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.wording import plural

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def types(
    ctx: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if files differ.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Export the Python types that blueprints use as JSON Schemas.

    Imports the modules that blueprints name. Writes the types of `context:`, `output_type:` and the
    functions that steps call to `schemas/`. `flujo validate` reads these files and imports nothing.
    """
    from flujo.services.admin import type_export

    invocation = Invocation.of(ctx)
    terminal = invocation.terminal
    found = type_export.compare(invocation.project)
    changed = [*found.outdated, *found.orphans]
    if not check:
        type_export.write(invocation.project, found)
    if as_json:
        terminal.json({"files": sorted(found.files), "changed": changed, "untold": list(found.untold)})
    else:
        for path in changed:
            orphan = path in found.orphans
            terminal.data(path if check or not orphan else f"{path} (removed: no blueprint uses its types)")
        if found.untold:
            terminal.say(f"no return type is known for: {', '.join(found.untold)}")
    if not changed:
        terminal.say(f"{plural(len(found.files), 'type file')} up to date", "green")
    elif check:
        terminal.say(f"{plural(len(changed), 'type file')} out of date")
        terminal.next(command("flujo", "types"), "update them")
        raise typer.Exit(ExitCode.RUN_FAILED)
    else:
        terminal.say(f"wrote {plural(len(changed), 'type file')}", "green")
        terminal.next(command("flujo", "validate"), "validate the blueprints with them")
