"""`flujo queues`: shows what is in the queues of the project's database."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from flujo.cli import options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.queues import DEFAULT_QUEUE, QueueState
from flujo.domain.wording import span
from flujo.exceptions import DatabaseMissing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.settings_tables import QueueTable

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_COLUMNS = {
    "queue": "QUEUE",
    "depth": "DEPTH",
    "delayed": "DELAYED",
    "in_flight": "IN FLIGHT",
    "oldest": "OLDEST",
    "paused": "PAUSED",
    "parked": "PARKED",
    "limits": "LIMITS",
}


@app.command()
def queues(ctx: typer.Context, as_json: options.AsJson = False) -> None:
    """Show what waits in the queues.

    Also how many of their runs are executed, paused or parked.
    """
    from flujo.cli.run_command import in_workspace
    from flujo.services.inspection.task_client import TaskClient

    invocation = Invocation.of(ctx)
    tables = invocation.project.settings.queues
    try:
        states: Sequence[QueueState] = in_workspace(invocation, lambda ws: TaskClient(ws).queues())
    except DatabaseMissing:
        if invocation.project.is_outside:
            raise
        states = []
    found = {each.queue: each for each in states}
    names = sorted({DEFAULT_QUEUE, *tables, *found})
    shown = [found.get(name) or QueueState(queue=name) for name in names]
    if as_json:
        invocation.terminal.json([{**asdict(each), "limits": _limits(tables, each.queue)} for each in shown])
        return
    invocation.terminal.table(_COLUMNS, [_row(each, _limits(tables, each.queue)) for each in shown])
    if any(each.parked for each in shown):
        invocation.terminal.next(
            command("flujo", "tasks", "list", "--status", "parked"), "show why runs were parked"
        )


def _limits(tables: "Mapping[str, QueueTable]", queue: str) -> "dict[str, int | str]":
    table = tables.get(queue)
    if table is None:
        return {}
    written = {"concurrency": table.concurrency, "rate": table.rate, "per_key": table.per_key}
    return {name: value for name, value in written.items() if value is not None}


def _row(state: QueueState, limits: "Mapping[str, int | str]") -> "dict[str, str]":
    return {
        "queue": state.queue,
        "depth": str(state.depth),
        "delayed": str(state.delayed),
        "in_flight": str(state.in_flight),
        "oldest": "" if state.oldest_s is None else span(round(state.oldest_s)),
        "paused": str(state.paused),
        "parked": str(state.parked),
        "limits": " ".join(f"{name}={value}" for name, value in limits.items()),
    }
