"""`flujo purge`: old runs and what belongs to them, taken out of the database."""

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import options
from flujo.cli.invocation import Invocation
from flujo.domain.wording import plural

if TYPE_CHECKING:
    from flujo.domain.run import Purged
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Status(StrEnum):
    """The states of runs that can be purged."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    PARKED = "parked"
    PAUSED = "paused"


@app.command()
def purge(
    ctx: typer.Context,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Not touched for that long: 30d, 12h, 90m.")
    ],
    status: Annotated[
        list[Status] | None, typer.Option(help="Runs in this state; repeat it.  [default: completed]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, say how many runs.")] = False,
    by: options.By = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete old runs and all that belongs to them."""
    from flujo.cli.run_command import in_workspace
    from flujo.domain.run import RunStatus
    from flujo.services.project.inputs import read_duration

    invocation, actor = Invocation.of(ctx), options.actor(by)
    terminal = invocation.terminal
    age = read_duration(older_than, option="--older-than")
    statuses = [RunStatus(each.value) for each in status or [Status.COMPLETED]]

    async def work(workspace: "Workspace") -> Any:
        from flujo.services.admin.purge import purge as purge_runs

        store = await workspace.store()

        def told(gone: "Purged") -> None:
            counts = ((gone.runs, "run"), (gone.answers, "answer"), (gone.contents, "content"))
            terminal.say(f"purged {', '.join(plural(*each) for each in counts)}", "dim")

        return await purge_runs(store, statuses, age, dry_run=dry_run, told=told, actor=actor)

    gone = in_workspace(invocation, work)
    if as_json:
        terminal.json({**asdict(gone), "dry_run": dry_run})
        return
    count = plural(gone.runs, "run")
    if dry_run:
        terminal.say(f"{count} would be purged; nothing was deleted")
    else:
        terminal.say(f"{count} purged, with {gone.contents} contents that nothing names any more")
