"""`flujo diff RUN RUN`: compares two runs."""

from typing import Annotated

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def diff(
    ctx: typer.Context,
    one: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run id, its prefix, or @last.", autocompletion=completion.runs),
    ],
    other: Annotated[
        str,
        typer.Argument(metavar="RUN", help="The run to compare it with.", autocompletion=completion.runs),
    ],
    as_json: options.AsJson = False,
) -> None:
    """Compare two runs."""
    from flujo.cli.fork_rendering import diff_data, show_run_diff
    from flujo.cli.run_command import in_workspace
    from flujo.services.replay.run_diff import diff_runs

    invocation = Invocation.of(ctx)
    found = in_workspace(invocation, lambda ws: diff_runs(ws, one, other))
    if as_json:
        invocation.terminal.json(diff_data(found))
    else:
        show_run_diff(invocation.terminal, found)
