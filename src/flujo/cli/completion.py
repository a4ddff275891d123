"""What the shell offers after a tab: blueprints, runs, steps, codes. Never an error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer  # noqa: TC002 - typer reads the annotations of these functions

from flujo.cli.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.services.inspection.task_client import TaskClient
    from flujo.services.inspection.trace import TraceNode
    from flujo.services.workspace import Workspace

Offer = tuple[str, str]
"""A word, and what the shell says about it where it can."""

_MOST = 30
_SQLITE = "sqlite:///"


def blueprints(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the project's blueprints by name."""
    found = _quietly(lambda: [(b.name, b.description) for b in _invocation(ctx).project.blueprints()])
    return _fitting(found, incomplete)


def codes(incomplete: str) -> list[Offer]:
    """Offer the codes of rules and errors."""
    from flujo.services.checks import validation

    return _fitting(_quietly(lambda: list(validation.codes().items())), incomplete.upper())


def codes_and_blueprints(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer what `flujo explain` takes."""
    return [*blueprints(ctx, incomplete), *codes(incomplete)]


def runs(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer run ids, the newest first."""
    return _fitting([("@last", "the newest run"), *_runs(_invocation(ctx))], incomplete)


def waiting_runs(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the runs that wait for a human."""
    return _fitting(_runs(_invocation(ctx), status="paused"), incomplete)


def steps(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the paths of the steps that the run on the line has been through."""

    async def been(client: TaskClient) -> list[Offer]:
        trace = (await client.get_task(ctx.params.get("run") or "@last")).trace
        return [(path, kind) for path, kind in _paths(trace) if path]

    return _fitting(_quietly(lambda: _from_database(_invocation(ctx), been)), incomplete)


def _paths(node: TraceNode) -> list[Offer]:
    return [(node.path, node.kind), *(found for child in node.children for found in _paths(child))]


def _runs(invocation: Invocation, **only: Any) -> list[Offer]:
    async def listed(client: TaskClient) -> list[Offer]:
        tasks = await client.list_tasks(limit=_MOST, **only)
        return [(task.run_id, f"{task.pipeline} {task.status}") for task in tasks]

    return _quietly(lambda: _from_database(invocation, listed))


def _from_database(invocation: Invocation, ask: Callable[[TaskClient], Any]) -> list[Offer]:
    """Ask the database; one that is not there is not made for the sake of a tab."""
    from flujo.cli.run_command import in_workspace
    from flujo.services.inspection.task_client import TaskClient

    uri = invocation.project.state_uri
    if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).is_file():
        return []

    def work(workspace: Workspace) -> Any:
        return ask(TaskClient(workspace))

    offers: list[Offer] = in_workspace(invocation, work)
    return offers


def _invocation(ctx: typer.Context) -> Invocation:
    """Return the call so far: while the shell completes, the main command itself has not run."""
    return Invocation(folder=Path(ctx.find_root().params.get("folder") or "."))


def _quietly(find: Callable[[], list[Offer]]) -> list[Offer]:
    try:
        return find()
    except Exception:  # noqa: BLE001 - whatever is wrong, a tab offers nothing and prints nothing
        return []


def _fitting(offers: list[Offer], incomplete: str) -> list[Offer]:
    return [(word, " ".join(said.split())) for word, said in offers if word.startswith(incomplete)]
