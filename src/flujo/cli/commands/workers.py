"""`flujo workers`: lists the living workers of the project's database, and pauses or resumes them."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.queues import WorkerRecord, WorkerState
from flujo.domain.wording import plural, span
from flujo.exceptions import DatabaseMissing, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.services.workspace import Workspace

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="List the living workers; pause or resume them.",
)

_COLUMNS = {
    "worker": "WORKER",
    "state": "STATE",
    "queues": "QUEUES",
    "runs": "RUNS",
    "version": "VERSION",
    "started": "STARTED",
    "seen": "SEEN",
}
_ALL = "all"

Who = Annotated[str, typer.Argument(metavar="WORKER", help="HOST:PID as `flujo workers` lists it, or `all`.")]


@app.callback(invoke_without_command=True)
def list_(ctx: typer.Context, as_json: options.AsJson = False) -> None:
    """List the living workers with the runs that they execute."""
    if ctx.invoked_subcommand is not None:
        return
    from flujo.cli.run_command import in_workspace
    from flujo.services.inspection.task_client import TaskClient

    invocation = Invocation.of(ctx)
    try:
        found: Sequence[WorkerRecord] = in_workspace(invocation, lambda ws: TaskClient(ws).workers())
    except DatabaseMissing:
        if invocation.project.is_outside:
            raise
        found = []
    if as_json:
        invocation.terminal.json([_data(each) for each in found])
    elif found:
        invocation.terminal.table(_COLUMNS, [_row(each) for each in found])
    else:
        invocation.terminal.say("no worker is alive")
        invocation.terminal.next(command("flujo", "worker"), "start one")


@app.command()
def pause(ctx: typer.Context, who: Who) -> None:
    """Let a worker take no further run; those in execution continue."""
    _set(ctx, who, WorkerState.PAUSED)


@app.command()
def resume(ctx: typer.Context, who: Who) -> None:
    """Let a paused worker take runs again."""
    _set(ctx, who, WorkerState.WORKING)


def _set(ctx: typer.Context, who: str, state: WorkerState) -> None:
    from flujo.cli.run_command import in_workspace

    invocation = Invocation.of(ctx)

    async def work(workspace: "Workspace") -> int:
        store = await workspace.store()
        living = await store.workers()
        chosen = [each for each in living if who in (_ALL, _name(each))]
        if not chosen and who != _ALL:
            raise SettingsError(
                f"no living worker is called {who!r}",
                hint=f"living: {', '.join(map(_name, living)) or 'none'}; `flujo workers` lists them",
            )
        return sum([await store.set_worker_state(each.owner, state) for each in chosen])

    count = in_workspace(invocation, work)
    verb = "paused" if state is WorkerState.PAUSED else "resumed"
    invocation.terminal.say(f"{verb} {plural(count, 'worker')}; a worker reads this within 5 seconds")


def _name(worker: WorkerRecord) -> str:
    return f"{worker.host}:{worker.pid}"


def _data(worker: WorkerRecord) -> dict[str, Any]:
    return {"worker": _name(worker), **asdict(worker), "state": str(worker.state)}


def _row(worker: WorkerRecord) -> dict[str, str]:
    from flujo.services.inspection import formatting

    more = f" and {len(worker.runs) - 3} more" if len(worker.runs) > 3 else ""
    return {
        "worker": _name(worker),
        "state": str(worker.state),
        "queues": " ".join(worker.queues),
        "runs": " ".join(map(formatting.short_id, worker.runs[:3])) + more,
        "version": worker.version,
        "started": formatting.moment(worker.started_at),
        "seen": f"{span(round(worker.silent_s))} ago",
    }
