"""`flujo schema`: prints the JSON Schema that editors validate blueprints with."""

from __future__ import annotations

import typer

from flujo.cli.invocation import Invocation

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def schema(ctx: typer.Context) -> None:
    """Print the JSON Schema of blueprints."""
    from flujo.services.checks.validation import schema_text

    Invocation.of(ctx).terminal.data(schema_text())
