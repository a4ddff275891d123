"""`flujo schema`: prints the JSON Schema that editors validate blueprints and files of cases with."""

from __future__ import annotations

from typing import Annotated

import typer

from flujo.cli.invocation import Invocation

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def schema(
    ctx: typer.Context,
    cases: Annotated[bool, typer.Option("--cases", help="The schema of files of cases.")] = False,
) -> None:
    """Print the JSON Schema of blueprints."""
    from flujo.services.checks.validation import schema_text

    Invocation.of(ctx).terminal.data(schema_text(of_cases=cases))
