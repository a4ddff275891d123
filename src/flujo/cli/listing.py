"""Writes runs as a table or as JSON, and suggests the next command for each status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.commands import command
from flujo.domain.paths import shown
from flujo.exceptions import AgentChanged
from flujo.services.inspection import formatting
from flujo.services.inspection.views import run_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.terminal import Terminal
    from flujo.domain.commands import ShellCommand
    from flujo.domain.journal import ErrorInfo
    from flujo.domain.run import Pause
    from flujo.services.inspection.tasks import Task

COLUMNS = {
    "run": "RUN",
    "blueprint": "BLUEPRINT",
    "status": "STATUS",
    "user": "USER",
    "created": "CREATED",
    "updated": "UPDATED",
    "spent": "SPENT",
    "metadata": "METADATA",
    "deadline": "DEADLINE",
    "detail": "DETAIL",
}
"""The columns of a list by the name in `--columns`, with their headers."""

_USUAL = ("run", "blueprint", "status", "updated", "spent", "metadata")
_WHEN_FILLED = ("deadline", "detail")
_CUT, _WHOLE = 72, 100_000
"""The most characters of a cell: on a terminal, and in a pipe, where nothing is cut."""


def show_runs(
    terminal: Terminal, tasks: Sequence[Task], *, as_json: bool, columns: Sequence[str] | None = None
) -> None:
    """Write runs to stdout: a table, or JSON with full ids and times in seconds since the epoch."""
    if as_json:
        terminal.json([run_data(task) for task in tasks])
    elif tasks:
        limit = _WHOLE if terminal.width is None else _CUT
        rows = [_row(task, limit) for task in tasks]
        if columns is None:
            columns = (*_USUAL, *(name for name in _WHEN_FILLED if any(row[name] for row in rows)))
        terminal.table({name: COLUMNS[name] for name in columns}, rows)


def next_for(run_id: str, status: str, error: ErrorInfo | None = None) -> ShellCommand:
    """Return the next command to suggest for a run with this status; a failed one has an error."""
    run = formatting.short_id(run_id)
    match status:
        case "paused" | "waiting":
            return command("flujo", "tasks", "show", run)
        case "failed" if error is not None and error.is_handled:
            return command("flujo", "trace", run)
        case "failed":
            is_changed = error is not None and error.code == AgentChanged.code
            accepting = ("--accept-changes",) if is_changed else ()
            return command("flujo", "resume", run, "--retry-failed", *accepting)
        case "completed" | "cancelled" | "running":
            return command("flujo", "trace", run)
        case _:
            return command("flujo", "resume", run)


def settled_line(pause: Pause) -> str:
    """Return who answered a question and when, that its deadline passed, or that a wait for tasks ended."""
    at, where = formatting.moment(pause.answered_at or 0), f"`{shown(pause.pause_id)}`"
    if pause.awaits_tasks:
        return f"wait at {where} ended {at}"
    if pause.is_expired:
        return f"deadline of {where} passed {at}"
    verb = "answered" if pause.event is None else f"event {pause.event} came to"
    return " ".join([verb, where, *(["by", pause.by] if pause.by else []), at])


def _row(task: Task, limit: int) -> dict[str, str]:
    metadata = " ".join(f"{key}={value}" for key, value in task.metadata.items())
    return {
        "run": formatting.short_id(task.run_id),
        "blueprint": task.pipeline,
        "status": str(task.display_status),
        "user": task.user_id or "",
        "created": formatting.moment(task.created_at),
        "updated": formatting.moment(task.updated_at),
        "spent": formatting.usage(task.usage),
        "metadata": formatting.brief(metadata, limit),
        "deadline": formatting.moment(task.deadline_at or 0),
        "detail": formatting.brief(_detail(task), limit),
    }


def _detail(task: Task) -> str:
    """Return why a run failed, what it asks, or who answered it."""
    if task.error is not None:
        return f"{task.error.message} [{task.error.code}]"
    if task.answer is not None:
        return settled_line(task.answer)
    if task.questions or task.waits:
        first, *others = task.questions or task.waits
        more = f" (and {len(others)} more)" if others else ""
        return f"{shown(first.pause_id)}{more}: {first.message}"
    return ""
