"""`flujo migrate`: migrates the database to the current schema."""

from typing import Annotated

import typer

from flujo.cli import options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def migrate(
    ctx: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 8 if a migration is needed.")
    ] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Change nothing; print the SQL statements.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Migrate the database to the current schema."""
    from flujo.services.admin import doctor

    invocation = Invocation.of(ctx)
    terminal = invocation.terminal
    if sql:
        terminal.data(doctor.migration_script(invocation.project).rstrip() or "-- nothing to do")
        return
    if check:
        before = after = doctor.schema_status(invocation.project)
    else:
        before, after = doctor.migrate(invocation.project)
    if as_json:
        terminal.json(
            {
                "database": after.database,
                "before": before.current,
                "now": after.current,
                "needed": after.needed,
            }
        )
    elif before.is_current:
        terminal.say(f"{after.database} is up to date (schema {after.current})")
    elif check:
        terminal.say(
            f"{after.database} has schema {after.current or 'none'}; this Flujo needs {after.needed}"
        )
        if not after.is_newer:
            terminal.next(command("flujo", "migrate"))
    else:
        terminal.say(f"{after.database}: schema {before.current or 'none'} → {after.current}", "green")
    if before.elsewhere:
        note = "the schema `flujo` of this database has tables of Flujo too; this project does not use them"
        terminal.say(note, "yellow")
    if not after.is_current:
        raise typer.Exit(ExitCode.STATE)
