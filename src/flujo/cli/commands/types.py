"""`flujo types`: the schemas of the Python types that blueprints name, written into `schemas/`."""

from typing import Annotated

import typer

from flujo.cli import options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation
from flujo.domain.wording import plural

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def types(
    ctx: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 when files differ.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write down the Python types that blueprints name.

    Imports their modules, and writes what `context:`, `output_type:` and functions that steps call are
    annotated with as JSON Schemas into `schemas/`. `flujo validate` reads them there and imports nothing.
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
            gone = path in found.orphans
            terminal.data(path if check or not gone else f"{path} (removed: nothing names its types)")
        if found.untold:
            terminal.say(f"nothing says what these give: {', '.join(found.untold)}")
    if not changed:
        terminal.say(f"{plural(len(found.files), 'file')} of types: as the code has it", "green")
    elif check:
        terminal.say(f"{plural(len(changed), 'file')} of types: not as the code has it")
        terminal.next("flujo types", "writes them")
        raise typer.Exit(ExitCode.RUN_FAILED)
    else:
        terminal.say(f"wrote {plural(len(changed), 'file')} of types", "green")
        terminal.next("flujo validate", "checks blueprints against them")
