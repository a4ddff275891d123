"""`flujo export RUN`: writes a run as one file, which needs no database."""

from pathlib import Path
from typing import Annotated

import typer

from flujo.cli import options
from flujo.cli.invocation import Invocation
from flujo.cli.run_arguments import Run

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def export(
    ctx: typer.Context,
    run: Run = "@last",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The file.  [default: RUN.jsonl.zst]", show_default=False
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a run as one file, which needs no database."""
    from flujo.cli.exporting import write_export

    write_export(Invocation.of(ctx), run, output, as_json=as_json)
