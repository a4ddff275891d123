"""`flujo tasks`: lists, shows, answers, retries and cancels the runs in the project's database."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.paths import shown
from flujo.domain.run import PauseKind, RunStatus
from flujo.exceptions import InputRejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.cli.progress import Progress
    from flujo.cli.terminal import Terminal
    from flujo.domain.run import Pause
    from flujo.services.inspection.task_client import TaskDetail
    from flujo.services.runs.execution import Stop
    from flujo.services.workspace import Workspace

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="List, show, answer, retry and cancel runs.",
)


class Resolution(StrEnum):
    """The outcome of a call in doubt."""

    DONE = "done"
    RETRY = "retry"
    FAIL = "fail"


@app.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[RunStatus | None, typer.Option(help="List only runs with this status.")] = None,
    metadata: options.Metadata = None,
    user: Annotated[str | None, typer.Option(help="List only runs with this user_id.")] = None,
    limit: options.Limit = 100,
    as_json: options.AsJson = False,
) -> None:
    """List runs, newest first."""
    from flujo.cli.listing import next_for, show_runs
    from flujo.cli.run_command import in_workspace
    from flujo.services.inspection.task_client import TaskClient
    from flujo.services.project.inputs import read_metadata

    invocation = Invocation.of(ctx)
    wanted = read_metadata(metadata or ())
    state = status.value if status else None
    found = in_workspace(
        invocation, lambda ws: TaskClient(ws).list_tasks(state, wanted, user_id=user, limit=limit)
    )
    show_runs(invocation.terminal, found, as_json=as_json)
    if as_json:
        return
    if found:
        invocation.terminal.next(next_for(found[0].run_id, str(found[0].status)))
    else:
        invocation.terminal.say("no matching runs")


@app.command()
def show(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run id, its prefix, or @last.", autocompletion=completion.runs),
    ],
    as_json: options.AsJson = False,
) -> None:
    """Show a run and its open questions."""
    from flujo.cli.run_command import in_workspace
    from flujo.services.inspection.task_client import TaskClient

    invocation = Invocation.of(ctx)
    detail = in_workspace(invocation, lambda ws: TaskClient(ws).get_task(run))
    if as_json:
        invocation.terminal.json(_detail_data(detail))
    else:
        _show(invocation.terminal, detail)


@app.command()
def resume(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN[:PAUSE]",
            help="A run, and its pause if several questions are open.",
            autocompletion=completion.waiting_runs,
        ),
    ],
    text: options.Text = None,
    file: options.File = None,
    fields: options.Fields = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Record the answer and exit; do not resume the run.")
    ] = False,
    by: options.By = None,
    paused_ok: options.PausedOk = False,
    as_json: options.AsJson = False,
) -> None:
    """Answer a run's question and resume the run."""
    from flujo.cli.formatting import decoded
    from flujo.services.project.inputs import read_input
    from flujo.services.runs.answers import way_to_settle

    given = options.given(text, file, fields)

    def read(pause: "Pause") -> tuple[Any, str]:
        what = f"the answer to `{shown(pause.pause_id)}`"
        try:
            answer = read_input(decoded(pause.answer_schema), given, what=what)
        except InputRejected as error:
            if pause.kind is PauseKind.QUESTION:
                raise
            raise InputRejected(error.message, hint=way_to_settle(run, pause)) from None
        return answer.value, answer.note

    _answer(ctx, run, PauseKind.QUESTION, read, by=by, detach=detach, paused_ok=paused_ok, as_json=as_json)


@app.command()
def resolve(
    ctx: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="RUN[:PAUSE]", help="A run, and its pause if several calls are in doubt.")
    ],
    outcome: Annotated[Resolution, typer.Option("--as", help="The outcome of the call.")],
    result: Annotated[
        str | None, typer.Option("--result", metavar="JSON", help="The call's result; only with `--as done`.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Record the outcome and exit; do not resume the run.")
    ] = False,
    by: options.By = None,
    paused_ok: options.PausedOk = False,
    as_json: options.AsJson = False,
) -> None:
    """Set the outcome of a call in doubt and resume its run."""

    def read(_: "Pause") -> tuple[Any, str]:
        from flujo.services.project.inputs import read_json

        given = {} if result is None else {"result": read_json(result, option="--result")}
        return {"resolution": outcome.value, **given}, ""

    _answer(
        ctx,
        run,
        PauseKind.DOUBT,
        read,
        by=by,
        detach=detach,
        paused_ok=paused_ok,
        as_json=as_json,
    )


@app.command()
def retry(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run id, its prefix, or @last.")],
    by: options.By = None,
    paused_ok: options.PausedOk = False,
    as_json: options.AsJson = False,
) -> None:
    """Resume a parked run, or retry the failed step of a failed one."""
    from flujo.cli.run_command import conclude, drive
    from flujo.services.runs import blueprint_runs

    invocation, actor = Invocation.of(ctx), options.actor(by)

    async def work(workspace: "Workspace", progress: "Progress", stop: "Stop") -> Any:
        return await blueprint_runs.resume(
            workspace,
            run,
            retry_failed=True,
            actor=actor,
            sink=progress,
            stop=stop,
            say=invocation.terminal.say,
        )

    conclude(invocation, drive(invocation, work), as_json=as_json, paused_ok=paused_ok)


@app.command()
def cancel(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run id, its prefix, or @last.")],
    by: options.By = None,
    as_json: options.AsJson = False,
) -> None:
    """Cancel a run. The process that executes it stops it; without one, this command does."""
    from flujo.cli.listing import run_data
    from flujo.cli.run_command import calls_data, in_workspace
    from flujo.services.inspection.task_client import TaskClient
    from flujo.services.runs import blueprint_runs

    invocation, actor = Invocation.of(ctx), options.actor(by)

    async def work(workspace: "Workspace") -> "TaskDetail":
        store = await workspace.store()
        record = await blueprint_runs.cancel(store, run, actor, clock=workspace.clock)
        return await TaskClient(workspace).get_task(record.run_id)

    detail = in_workspace(invocation, work)
    if as_json:
        invocation.terminal.json({**run_data(detail.task), "in_doubt": calls_data(detail.in_doubt)})
    else:
        _show_cancelled(invocation.terminal, detail)


def _show_cancelled(terminal: "Terminal", detail: "TaskDetail") -> None:
    from flujo.cli.listing import next_for

    match detail.task.status:
        case "cancelled":
            terminal.say("cancelled; completed steps are kept, the run cannot be resumed")
        case "completed":
            terminal.say("the run completed before it could be cancelled")
        case _:
            terminal.say(
                "cancellation requested; the process that executes the run stops it after the current step",
                "yellow",
            )
    _show_calls(terminal, detail)
    terminal.next(next_for(detail.task.run_id, str(detail.task.status)))


def _show_calls(terminal: "Terminal", detail: "TaskDetail") -> None:
    from flujo.services.runs.execution import in_doubt

    for call in detail.in_doubt:
        terminal.say(in_doubt(call))


def _answer(
    ctx: typer.Context,
    run: str,
    kind: PauseKind,
    read: "Callable[[Pause], tuple[Any, str]]",
    *,
    by: str | None,
    detach: bool,
    paused_ok: bool,
    as_json: bool,
) -> None:
    """Settle the pause that `run` (`RUN[:PAUSE]`) names with the value of `read`, and resume the run."""
    from flujo.cli.formatting import short_id
    from flujo.cli.run_command import conclude, drive, result_data
    from flujo.services.runs import blueprint_runs
    from flujo.services.runs.answers import chosen

    invocation, actor = Invocation.of(ctx), options.actor(by)
    name, _, typed = run.partition(":")

    async def work(workspace: "Workspace", progress: "Progress", stop: "Stop") -> Any:
        store = await workspace.store()
        record = await store.find(name)
        pause = chosen(record, await store.pauses(record.run_id), typed or None, kind)
        answer, note = read(pause)
        if note:
            invocation.terminal.say(note, "dim")
        return await blueprint_runs.answer(
            workspace,
            record.run_id,
            pause.pause_id,
            answer,
            actor=actor,
            kind=kind,
            detach=detach,
            sink=progress,
            stop=stop,
            say=invocation.terminal.say,
        )

    result = drive(invocation, work)
    if not result.note:
        conclude(invocation, result, as_json=as_json, paused_ok=paused_ok)
        return
    if as_json:
        invocation.terminal.json(result_data(result))
    if detach:
        invocation.terminal.say("answer recorded")
        invocation.terminal.next(command("flujo", "resume", short_id(result.run_id)), "resume the run")
    else:
        invocation.terminal.say(result.note)
        invocation.terminal.next(command("flujo", "trace", short_id(result.run_id)), "show its progress")


def _show(terminal: "Terminal", detail: "TaskDetail") -> None:
    from flujo.cli import formatting
    from flujo.cli.listing import next_for
    from flujo.cli.run_command import answer_with, continued_later, pause_line
    from flujo.cli.trace_rendering import show_acts

    task = detail.task
    facts = {
        "run": task.run_id,
        "blueprint": task.pipeline,
        "status": str(task.status),
        "user": task.user_id,
        "metadata": " ".join(f"{key}={value}" for key, value in task.metadata.items()),
        "created": formatting.moment(task.created_at),
        "updated": formatting.moment(task.updated_at),
        "spent": formatting.usage(task.usage, detail.trace.unconfirmed),
        "input": formatting.brief(detail.input, 400) if detail.input is not None else "",
        "context": formatting.brief(detail.context, 400) if detail.context else "",
        "state": " ".join(f"{shown(path)}:{state}" for path, state in detail.states.items()),
        "error": f"{detail.error.message} [{detail.error.code}]" if detail.error else "",
        "output": formatting.brief(detail.output, 400) if detail.output is not None else "",
    }
    for name, value in facts.items():
        if value:
            first, *rest = value.split("\n")
            terminal.data("\n".join([f"{name + ':':<11}{first}", *(f"{'':<11}{line}" for line in rest)]))
    show_acts(terminal, detail.acts)
    _show_calls(terminal, detail)
    open_ones = [pause for pause in detail.pauses if pause.is_open]
    asked = [pause for pause in open_ones if pause.kind.asks_human]
    for pause in open_ones:
        terminal.data(f"{pause_line(pause)}:\n{pause.message}" if pause in asked else pause_line(pause))
    for pause in asked:
        answer_with(terminal, formatting.short_id(task.run_id), pause, alone=len(asked) == 1)
    if open_ones and not asked:
        continued_later(terminal)
    if not open_ones:
        terminal.next(next_for(task.run_id, str(task.status)))


def _detail_data(detail: "TaskDetail") -> dict[str, Any]:
    from flujo.cli.listing import run_data
    from flujo.cli.run_command import calls_data, pause_data
    from flujo.cli.trace_rendering import acts_data, node_data

    return {
        **run_data(detail.task),
        "input": detail.input,
        "context": detail.context,
        "output": detail.output,
        "error": detail.error.to_json() if detail.error else None,
        "states": dict(detail.states),
        "pauses": [{**pause_data(pause), "open": pause.is_open} for pause in detail.pauses],
        "in_doubt": calls_data(detail.in_doubt),
        "acts": acts_data(detail.acts),
        "trace": node_data(detail.trace),
    }
