"""`flujo pull RUN --from URI`: copies a run from another database, or from an exported file."""

from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.wording import plural

if TYPE_CHECKING:
    from flujo.services.replay.pull import Pulled
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def pull(
    ctx: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run id there, its prefix, or @last.", show_default=False)
    ],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URI",
            help="The other database (sqlite:///… or postgresql://…), or a file of `flujo export`.",
            show_default=False,
        ),
    ],
    by: options.By = None,
    as_json: options.AsJson = False,
) -> None:
    """Copy a run from another database, or from an exported file."""
    from flujo.cli.run_command import in_workspace

    invocation, actor = Invocation.of(ctx), options.actor(by)

    async def work(workspace: "Workspace") -> "Pulled":
        from flujo.services.replay.pull import pull as copied
        from flujo.services.replay.pull import shown_origin
        from flujo.services.replay.sources import opened_source

        async with opened_source(source, workspace.project.settings) as opened:
            found = await opened.find(run)
            store = await workspace.store()
            return await copied(opened, found.run_id, store, actor=actor, origin=shown_origin(source))

    pulled = in_workspace(invocation, work, creates=True)
    run_id, status = pulled.record.run_id, str(pulled.record.status)
    if as_json:
        facts = {"run_id": run_id, "status": status, "was": str(pulled.was.status)}
        invocation.terminal.json({**facts, "runs": list(pulled.runs), "new": list(pulled.new)})
        return
    if not pulled.new:
        invocation.terminal.say(f"run {run_id} is here already, with the same content; nothing was changed")
        return
    tasks = len(pulled.runs) - 1
    beside = f" and {plural(tasks, 'background task')}" if tasks else ""
    invocation.terminal.say(f"pulled run {run_id}{beside}", "green")
    if status != str(pulled.was.status):
        invocation.terminal.say(
            f"it was {pulled.was.status} there, and is {status} here: no process executes the copy by itself",
            "dim",
        )
    invocation.terminal.next(command("flujo", "trace", run_id), "show what happened")
