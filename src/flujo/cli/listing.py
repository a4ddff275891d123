"""Lists runs, and suggests the next command for each status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.cli import formatting
from flujo.domain.commands import command
from flujo.exceptions import AgentChanged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flujo.cli.terminal import Terminal
    from flujo.domain.commands import ShellCommand

_COLUMNS = {
    "run": "RUN",
    "pipeline": "BLUEPRINT",
    "status": "STATUS",
    "updated": "UPDATED",
    "spent": "SPENT",
    "metadata": "METADATA",
}


def show_runs(terminal: Terminal, runs: Iterable[Any], *, as_json: bool) -> None:
    """Write runs to stdout: a table, or JSON with full ids and times in seconds since the epoch."""
    found = list(runs)
    if as_json:
        terminal.json([run_data(run) for run in found])
    elif found:
        waits = any(run.deadline_at for run in found)
        columns = {**_COLUMNS, **({"deadline": "DEADLINE"} if waits else {})}
        terminal.table(columns, [_row(run) for run in found])


def run_data(run: Any) -> dict[str, Any]:
    """Return a run as JSON data."""
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline,
        "status": str(run.status),
        "user_id": run.user_id,
        "metadata": dict(run.metadata),
        "usage": formatting.usage_data(run.usage),
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "deadline_at": run.deadline_at,
    }


def next_for(run_id: str, status: str, error_code: str = "") -> ShellCommand:
    """Return the next command to suggest for a run with this status; a failed one has an error code."""
    run = formatting.short_id(run_id)
    match status:
        case "paused" | "waiting":
            return command("flujo", "tasks", "show", run)
        case "failed":
            accepting = ("--accept-changes",) if error_code == AgentChanged.code else ()
            return command("flujo", "resume", run, "--retry-failed", *accepting)
        case "completed" | "cancelled":
            return command("flujo", "trace", run)
        case _:
            return command("flujo", "resume", run)


def _row(run: Any) -> dict[str, str]:
    metadata = " ".join(f"{key}={value}" for key, value in run.metadata.items())
    return {
        "run": formatting.short_id(run.run_id),
        "pipeline": run.pipeline,
        "status": str(run.status),
        "updated": formatting.moment(run.updated_at),
        "spent": formatting.usage(run.usage),
        "metadata": formatting.brief(metadata),
        "deadline": formatting.moment(run.deadline_at or 0),
    }
