"""`flujo logs RUN`: shows what happened in a run, line by line."""

from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain import chains
from flujo.services.inspection.views import line_data

if TYPE_CHECKING:
    from flujo.services.inspection.following import LogLine
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def logs(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run id, its prefix, or @last.", autocompletion=completion.runs),
    ] = "@last",
    is_followed: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Show new lines until the run ends; Ctrl-C does not stop it."),
    ] = False,
    since: Annotated[
        int,
        typer.Option(metavar="OFFSET", min=0, help="Show only the lines after this offset."),
    ] = 0,
    since_number: Annotated[
        int,
        typer.Option(
            metavar="NUMBER", min=0, help="With -f: show only the provisional lines after this number."
        ),
    ] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Show what happened in a run, line by line; -f follows it.

    With -f there are also provisional lines, which the journal does not keep: steps that begin, what code
    of the run logs, and text of models as it arrives.
    """
    from flujo.cli.log_rendering import LogPrinter, say_chain
    from flujo.cli.run_command import in_workspace
    from flujo.services.inspection.task_client import TaskClient

    terminal = Invocation.of(ctx).terminal
    printer = LogPrinter(terminal)

    def show(line: "LogLine") -> None:
        if as_json:
            terminal.json(line_data(line))
        else:
            printer.show(line)

    async def shown(workspace: "Workspace") -> None:
        client = TaskClient(workspace)
        if is_followed:
            async for line in client.follow(run, after=since, after_number=since_number):
                show(line)
        else:
            for line in await client.get_log(run, after=since):
                show(line)
        if not as_json:
            printer.end()
            record = await (await workspace.store()).find(run)
            say_chain(terminal, record.run_id, chains.continued_as(record.run_id, record.output))

    try:
        in_workspace(Invocation.of(ctx), shown)
    finally:
        printer.end()
