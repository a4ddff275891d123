"""`flujo why RUN`: shows why a run took its way."""

from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.cli.run_arguments import RunOrFile

if TYPE_CHECKING:
    from flujo.services.inspection.why import Account
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def why(
    ctx: typer.Context,
    run: RunOrFile = "@last",
    step: Annotated[
        str | None,
        typer.Argument(
            metavar="PATH",
            help="Explain only this step; a path such as `draft[1]/write` or `draft.1/write`.",
            show_default=False,
            autocompletion=completion.steps,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show why a run took its way: decisions, values, retries."""
    from flujo.cli.run_command import in_workspace
    from flujo.cli.why_rendering import account_data, show_account

    async def explained(workspace: "Workspace") -> "Account":
        from flujo.services.inspection.why import explain_pinned

        return await explain_pinned(workspace, run, step)

    invocation = Invocation.of(ctx)
    account = in_workspace(invocation, explained)
    if as_json:
        invocation.terminal.json(account_data(account))
    else:
        show_account(invocation.terminal, account)
