"""Shell completion of blueprints, runs, steps and codes. Never raises."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer  # noqa: TC002 - typer reads the annotations of these functions

from flujo.cli.invocation import Invocation
from flujo.governance.screen import visible_line
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.services.inspection.task_client import TaskClient
    from flujo.services.inspection.trace_tree import TraceNode
    from flujo.services.workspace import Workspace

Offer = tuple[str, str]
"""A completion and its description."""

_MOST = 30


def blueprints(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the project's blueprints by name."""
    found = _quietly(lambda: [(b.name, b.description) for b in _invocation(ctx).project.blueprints()])
    return _fitting(found, incomplete)


def codes(incomplete: str) -> list[Offer]:
    """Offer the codes of rules and errors."""
    from flujo.services.checks import validation

    return _fitting(_quietly(lambda: list(validation.codes().items())), incomplete.upper())


def codes_and_blueprints(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer blueprints and codes, for `flujo explain`."""
    return [*blueprints(ctx, incomplete), *codes(incomplete)]


def runs(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer run ids, newest first."""
    return _fitting([("@last", "the newest run"), *_runs(_invocation(ctx))], incomplete)


def waiting_runs(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the ids of paused runs."""
    return _fitting(_runs(_invocation(ctx), status="paused"), incomplete)


def schedules(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the names of the database's schedules."""

    async def named(workspace: Workspace) -> list[Offer]:
        found = (await (await workspace.store()).schedules()).records
        return [(record.name, f"{record.schedule.cron} {record.schedule.timezone}") for record in found]

    return _fitting(_quietly(lambda: _in_workspace(_invocation(ctx), named)), incomplete)


def steps(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the step paths of the run named on the command line."""

    async def visited(client: TaskClient) -> list[Offer]:
        trace = (await client.get_task(ctx.params.get("run") or "@last")).trace
        return [(path, kind) for path, kind in _paths(trace) if path]

    return _fitting(_quietly(lambda: _from_database(_invocation(ctx), visited)), incomplete)


def _paths(node: TraceNode) -> list[Offer]:
    return [(node.path, node.kind), *(found for child in node.children for found in _paths(child))]


def _runs(invocation: Invocation, **only: Any) -> list[Offer]:
    async def listed(client: TaskClient) -> list[Offer]:
        tasks = await client.list_tasks(limit=_MOST, **only)
        return [(task.run_id, f"{task.pipeline} {task.status}") for task in tasks]

    return _quietly(lambda: _from_database(invocation, listed))


def _from_database(invocation: Invocation, query: Callable[[TaskClient], Any]) -> list[Offer]:
    """Query the database."""
    from flujo.services.inspection.task_client import TaskClient

    def work(workspace: Workspace) -> Any:
        return query(TaskClient(workspace))

    return _in_workspace(invocation, work)


def _in_workspace(invocation: Invocation, work: Callable[[Workspace], Any]) -> list[Offer]:
    from flujo.cli.run_command import in_workspace

    offers: list[Offer] = in_workspace(invocation, work)
    return offers


def _invocation(ctx: typer.Context) -> Invocation:
    """Return the invocation; during completion the root command has not run."""
    return Invocation(folder=Path(ctx.find_root().params.get("folder") or "."))


def _quietly(find: Callable[[], list[Offer]]) -> list[Offer]:
    try:
        return find()
    except Exception:  # noqa: BLE001 - on any error, completion offers nothing and prints nothing
        return []


def _fitting(offers: list[Offer], incomplete: str) -> list[Offer]:
    return [
        (word, visible_line(GATE.text(" ".join(about.split()))))
        for word, about in offers
        if word.startswith(incomplete) and word == visible_line(word)
    ]
