"""Shows one run: its facts, its questions and what can be done next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.cli.listing import next_for, settled_line
from flujo.cli.run_command import answer_with, continued_later, pause_line
from flujo.cli.trace_rendering import show_acts
from flujo.domain.commands import command
from flujo.domain.paths import shown
from flujo.services.inspection import formatting
from flujo.services.inspection.views import decoded
from flujo.services.runs.execution import in_doubt
from flujo.services.runs.sending import unfit

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal
    from flujo.services.inspection.task_detail import TaskDetail
    from flujo.services.inspection.tasks import Task

_EXPLAINED = {
    "answered": "no process has resumed it yet; a worker or an open runner of its pipeline does",
    "orphaned": "its process has ended; a worker or an open runner of its pipeline resumes it",
}
"""What happens next with a run whose status alone does not tell it."""


def show_task(terminal: Terminal, detail: TaskDetail) -> None:
    """Write a run to stdout."""
    task = detail.task
    status = str(task.display_status)
    explained = _EXPLAINED.get("answered" if task.answer is not None else status)
    facts = {
        "run": task.run_id,
        "blueprint": task.pipeline,
        "status": f"{status} ({explained})" if explained else status,
        "parent": _parent(task),
        "tasks": ", ".join(f"{formatting.short_id(each.run_id)} {each.status}" for each in detail.children),
        "continues": detail.continues,
        "continued": f"as {detail.continued_as}" if detail.continued_as else "",
        "queue": task.queue,
        "user": task.user_id,
        "metadata": " ".join(f"{key}={value}" for key, value in task.metadata.items()),
        "created": formatting.moment(task.created_at),
        "updated": formatting.moment(task.updated_at),
        "ends by": formatting.moment(task.ends_by) if task.ends_by else "",
        "spent": formatting.usage(task.usage, detail.trace.unconfirmed),
        "input": formatting.brief(detail.input, 400) if detail.input is not None else "",
        "context": formatting.brief(detail.context, 400) if detail.context else "",
        "state": " ".join(f"{shown(path)}:{state}" for path, state in detail.states.items()),
        "error": f"{detail.error.message} [{detail.error.code}]" if detail.error else "",
        "at": formatting.code_place(detail.error.frame) if detail.error else "",
        "output": formatting.brief(detail.output, 400)
        if detail.output is not None and detail.continued_as is None
        else "",
    }
    for name, value in facts.items():
        if value:
            first, *rest = value.split("\n")
            terminal.data("\n".join([f"{name + ':':<11}{first}", *(f"{'':<11}{line}" for line in rest)]))
    show_acts(terminal, detail.acts)
    show_calls(terminal, detail)
    if task.answer is not None:
        terminal.data(settled_line(task.answer))
    open_ones = [pause for pause in detail.pauses if pause.is_open]
    asked = [pause for pause in open_ones if pause.kind.asks_human]
    for pause in open_ones:
        terminal.data(f"{pause_line(pause)}:\n{pause.message}" if pause in asked else pause_line(pause))
    _show_kept(terminal, detail)
    for pause in asked:
        answer_with(terminal, formatting.short_id(task.run_id), pause, alone=len(asked) == 1)
    if open_ones and not asked:
        continued_later(terminal, formatting.short_id(task.run_id), open_ones)
    if not open_ones:
        terminal.next(next_for(task.run_id, status, task.error))


def _parent(task: Task) -> str:
    """Return the run that launched a task, or that an evaluation scores, and the step."""
    if task.parent is None:
        return ""
    step = f" at {shown(task.parent_path)}" if task.parent_path else ""
    return f"{formatting.short_id(task.parent)}{step}"


def _show_kept(terminal: Terminal, detail: TaskDetail) -> None:
    """Write the events that are kept for a run, with the reason when the run does not take one."""
    waits = [pause for pause in detail.pauses if pause.is_open and pause.event is not None]
    for event in detail.events:
        reasons = [why for pause in waits if (why := unfit(pause, event))]
        payload = formatting.brief(decoded(event.payload), 120)
        unfitting = f"; it does not fit: {reasons[0]}" if reasons else ""
        at = formatting.moment(event.at)
        terminal.data(
            f"kept event {event.event_id}: {event.name} by {event.actor.by} {at}: {payload}{unfitting}"
        )


def show_cancelled(terminal: Terminal, detail: TaskDetail) -> None:
    """Write the result of a request to cancel a run."""
    match detail.task.status:
        case "cancelled":
            terminal.say("cancelled; completed steps are kept, the run cannot be resumed")
        case "completed":
            terminal.say("the run completed before it could be cancelled")
        case "running" if detail.task.display_status == "orphaned":
            run = formatting.short_id(detail.task.run_id)
            terminal.say("cancellation requested; the process that resumes the run executes its `finally`")
            terminal.next(command("flujo", "resume", run), "execute `finally` and end the run")
            return
        case _:
            terminal.say(
                "cancellation requested; the process that executes the run stops it after the current step",
                "yellow",
            )
    show_calls(terminal, detail)
    terminal.next(next_for(detail.task.run_id, str(detail.task.display_status)))


def show_calls(terminal: Terminal, detail: TaskDetail) -> None:
    """Write the calls of a run whose outcome is not recorded."""
    for call in detail.in_doubt:
        terminal.say(in_doubt(call))
