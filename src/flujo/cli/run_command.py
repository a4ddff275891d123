"""Executes a run from the command line: progress, signals, result and exit code."""

from __future__ import annotations

import asyncio
import signal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from flujo.cli import event_loop
from flujo.cli.event_lines import EventLines
from flujo.cli.exit_codes import ExitCode, of_run
from flujo.cli.listing import next_for
from flujo.cli.progress import Progress, progress
from flujo.cli.stepping import Stepping, require_terminal
from flujo.domain import paths
from flujo.domain.commands import command
from flujo.domain.paths import StepPath, shown
from flujo.domain.run import RunStatus
from flujo.domain.wording import span
from flujo.exceptions import AgentChanged
from flujo.governance.logs import logger
from flujo.services.inspection import formatting, views

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from flujo.cli.invocation import Invocation
    from flujo.cli.terminal import Terminal
    from flujo.domain.journal import ErrorInfo
    from flujo.domain.models import PipelineResult
    from flujo.domain.run import Pause
    from flujo.services.runs.execution import Stop
    from flujo.services.workspace import Workspace

T = TypeVar("T")


def drive(
    invocation: Invocation,
    work: Callable[[Workspace, Progress, Stop], Awaitable[T]],
    *,
    creates: bool = False,
    answered: Callable[[T], None] = lambda _: None,
    say_stopped: Callable[[Terminal], None] | None = None,
    by_step: bool = False,
) -> T:
    """Do `work` in the project's workspace and return its result.

    With `creates`, a database that does not exist is created. `answered` gets the result before the workspace
    is closed, which may wait for evaluations. `say_stopped` says how work other than that of one run
    continues after a signal. With `by_step`, a question follows every step.

    The first Ctrl-C or SIGTERM stops the run so that it can be resumed; a second Ctrl-C exits at once.

    Raises:
        typer.Exit: a signal stopped the run; the command that resumes it has been printed.
    """
    from flujo.services.workspace import Workspace

    caught: list[signal.Signals] = []
    logger("asyncio")  # reports exceptions of step code's own tasks
    shown = _display(invocation.terminal, by_step=by_step)
    try:
        workspace = Workspace(invocation.project, creates=creates)
        return event_loop.run(_supervised(workspace, work, shown, caught, answered))
    except asyncio.CancelledError:
        if not caught:
            raise
    if say_stopped is not None:
        say_stopped(invocation.terminal)
        raise typer.Exit(ExitCode.INTERRUPTED if caught[0] is signal.SIGINT else ExitCode.TERMINATED)
    code = _stopped(invocation.terminal, caught[0], shown)
    if invocation.wants_json:
        invocation.terminal.failure(_stop_data(shown, code))
    raise typer.Exit(code)


def _display(terminal: Terminal, *, by_step: bool) -> Progress:
    """Return the display of a run: its events as JSON where they are wanted, otherwise for people."""
    if by_step:
        require_terminal(terminal)
        return Stepping(terminal)
    return EventLines(terminal) if terminal.writes_events else progress(terminal)


def in_workspace(
    invocation: Invocation, work: Callable[[Workspace], Awaitable[Any]], *, creates: bool = False
) -> Any:
    """Do `work` in the project's workspace, for commands that execute no run.

    With `creates`, a project's database that does not exist is created.
    """
    from flujo.services.workspace import Workspace

    async def opened() -> Any:
        creating = creates and not invocation.project.is_outside
        async with Workspace(invocation.project, creates=creating) as workspace:
            return await work(workspace)

    return event_loop.run(opened())


async def _supervised(
    workspace: Workspace,
    work: Callable[[Workspace, Progress, Stop], Awaitable[T]],
    shown: Progress,
    caught: list[signal.Signals],
    answered: Callable[[T], None],
) -> T:
    from flujo.services.runs.execution import Stop, StopReason

    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    why = Stop()

    def stop(number: signal.Signals) -> None:
        caught.append(number)
        loop.remove_signal_handler(number)  # a second signal has its default effect
        why.reason = StopReason.INTERRUPT if number is signal.SIGINT else StopReason.SHUTDOWN
        if task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    async with workspace:
        workspace.on_download = shown.download
        if isinstance(shown, Stepping):
            shown.workspace = workspace
        with shown:
            result = await work(workspace, shown, why)
        answered(result)
    return result


def _stopped(terminal: Terminal, number: signal.Signals, progress: Progress) -> ExitCode:
    interrupted, run_id = number is signal.SIGINT, progress.run_id
    if not run_id:
        terminal.say("interrupted before the run started; nothing was saved", "yellow")
    elif progress.status is RunStatus.WAITING:
        terminal.say("stopped waiting; the run itself still waits", "yellow")
        terminal.next(command("flujo", "worker"), "it continues the run when the wait is over")
    elif progress.status not in (None, RunStatus.INTERRUPTED, RunStatus.RUNNING):
        terminal.say(f"stopped waiting for background tasks; the run itself is {progress.status}", "yellow")
        tasks = command("flujo", "tasks", "list", "--parent", formatting.short_id(run_id))
        terminal.next(tasks, "list its tasks; `flujo worker` continues them")
    else:
        word = "interrupted" if interrupted else "stopped"
        terminal.say(f"{word}; completed steps are kept", "yellow")
        terminal.next(command("flujo", "resume", formatting.short_id(run_id)), "continue where it stopped")
    return ExitCode.INTERRUPTED if interrupted else ExitCode.TERMINATED


def _stop_data(progress: Progress, code: ExitCode) -> dict[str, Any]:
    """Return as JSON data that a signal has stopped the command."""
    run = progress.run_id
    hint = str(command("flujo", "resume", run)) if run else None
    return {
        "code": None,
        "type": "Stopped",
        "message": "a signal has stopped the command",
        "hint": hint,
        "exit_code": int(code),
        "run_id": run or None,
    }


# How a run ended ----------------------------------------------------------------------------------------


def conclude(
    invocation: Invocation,
    result: PipelineResult[Any, Any],
    *,
    as_json: bool,
    paused_ok: bool = False,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write the output to stdout and messages to stderr, and exit with the run's exit code.

    `more` is added to the JSON.

    Raises:
        typer.Exit: the exit code is not 0.
    """
    terminal = invocation.terminal
    if terminal.writes_events:
        terminal.json_line({"event": "end", **result_data(result), **more})
    elif as_json:
        terminal.json({**result_data(result), **more})
    elif result.success:
        show_value(terminal, result.output)
    _report(invocation, result, as_json=as_json, paused_ok=paused_ok)
    code = of_run(result.status, result.error.code if result.error else None)
    if code is ExitCode.PAUSED and paused_ok:
        code = ExitCode.OK
    if code:
        raise typer.Exit(code)


def show_value(terminal: Terminal, value: Any) -> None:
    """Write a value to stdout: text as it is, other values as JSON."""
    if isinstance(value, str):
        terminal.verbatim(value)
    elif value is not None:
        terminal.json(value)


def result_data(result: PipelineResult[Any, Any]) -> dict[str, Any]:
    """Return a run's result as JSON data, with the exit code in its error."""
    data: dict[str, Any] = {**views.result_data(result)}
    if result.error is not None:
        data["error"]["exit_code"] = int(of_run(result.status, result.error.code))
    return data


def _report(
    invocation: Invocation, result: PipelineResult[Any, Any], *, as_json: bool, paused_ok: bool
) -> None:
    terminal = invocation.terminal
    run = formatting.short_id(result.run_id)
    spent = formatting.usage(result.usage, result.unconfirmed)
    match str(result.status):
        case "completed":
            terminal.say("  ".join(filter(None, ["completed", spent])), "green")
            terminal.next(command("flujo", "trace", run), "show what happened")
        case "paused" | "waiting":
            if spent:
                terminal.say(f"{result.status}  {spent}", "yellow")
            show_pauses(terminal, run, result.pauses, is_result=paused_ok and not as_json)
        case "failed":
            _report_failure(invocation, result)
            terminal.next(next_for(result.run_id, "failed", result.error), _why_next(result.error))
        case status:
            reason = f": {result.error.message}" if result.error else ""
            terminal.say(f"{status}{reason}", "yellow")
            if result.note:
                terminal.say(result.note)
            terminal.next(command("flujo", "trace", run), "show what happened")


def _why_next(error: ErrorInfo | None) -> str:
    if error is not None and error.is_handled:
        return "show what happened; the clean-up has ended"
    is_changed = error is not None and error.code == AgentChanged.code
    return "continue with the changed agent" if is_changed else "retry the failed step"


def _report_failure(invocation: Invocation, result: PipelineResult[Any, Any]) -> None:
    from flujo.cli.errors import say_error, show_traceback

    terminal = invocation.terminal
    show_traceback(result.cause, invocation)
    if result.error is None:
        say_error(terminal, f"run {formatting.short_id(result.run_id)} failed")
        return
    error = result.error
    at = formatting.code_place(error.frame)
    say_error(terminal, _located(error), code=error.code, hint=error.hint or "", at=at)


def _located(error: ErrorInfo) -> str:
    """Return the message of an error with the path of its step, which it may name at its beginning."""
    if not error.path:
        return error.message
    where, named = f"step `{shown(error.path)}`", f"step {paths.name(StepPath(error.path))!r}"
    rest = error.message.removeprefix(named)
    says_where = rest != error.message and rest.startswith((" ", ":"))
    return where + rest if says_where else f"{where}: {error.message}"


def show_pauses(terminal: Terminal, run: str, pauses: Sequence[Pause], *, is_result: bool) -> None:
    """Write what a run waits for, and name the commands that continue it.

    With `is_result`, questions are written to stdout. Otherwise stdout stays empty: a program that reads the
    output of a run must not take a question for it.
    """
    asked = [pause for pause in pauses if pause.kind.asks_human]
    for pause in pauses:
        if pause not in asked:
            terminal.say(pause_line(pause), "cyan")
            if pause.awaits_tasks:
                terminal.next(command("flujo", "tasks", "list", "--parent", run), "list its background tasks")
            continue
        terminal.say(f"{pause_line(pause)}:", "yellow")
        (terminal.data if is_result else terminal.say)(pause.message)
        answer_with(terminal, run, pause, alone=len(asked) == 1)
    if not asked:
        continued_later(terminal, run, pauses)


def pause_line(pause: Pause) -> str:
    """Return where a run waits, for what, and until when."""
    line = f"waiting {_for(pause)}at `{shown(pause.pause_id)}`"
    if pause.event is not None and pause.asked_at:
        line += f" since {formatting.moment(pause.asked_at)}"
    if pause.deadline_s:  # of a new one
        return f"{line} {'within' if pause.kind.asks_human else 'for'} {span(pause.deadline_s)}"
    return f"{line} until {formatting.moment(pause.deadline_at)}" if pause.deadline_at else line


def _for(pause: Pause) -> str:
    if pause.event is None:
        return "for an answer " if pause.kind.asks_human else ""
    with_key = "" if pause.event_key is None else f"with the key `{pause.event_key}` "
    return f"for the event `{pause.event}` {with_key}"


def continued_later(terminal: Terminal, run: str, waits: Sequence[Pause]) -> None:
    """Name the commands that end the wait of a run which waits for no human, and that continue it."""
    events = [wait for wait in waits if wait.event is not None]
    if len({wait.event for wait in events}) == 1:
        answer_with(terminal, run, events[0], alone=True)
    terminal.next(command("flujo", "worker"), "it continues the run when the wait is over")


def answer_with(terminal: Terminal, run: str, pause: Pause, *, alone: bool) -> None:
    """Name the command that answers an open question."""
    from flujo.services.runs.answers import address, settled_by

    terminal.next(*settled_by(run if alone else address(run, pause.pause_id), pause))
