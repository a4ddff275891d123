"""`flujo tasks`: lists, shows, answers, retries and cancels runs, and sends events to them."""

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.cli.listing import COLUMNS
from flujo.domain.commands import command
from flujo.domain.paths import StepPath, shown
from flujo.domain.queues import RunKind
from flujo.domain.run import PauseKind, RunOrder
from flujo.exceptions import InputRejected
from flujo.services.inspection.trace_views import task_data
from flujo.services.inspection.views import calls_data, decoded, run_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.cli.progress import Progress
    from flujo.domain.run import Pause
    from flujo.services.inspection.task_detail import TaskDetail
    from flujo.services.inspection.tasks import TaskConditions
    from flujo.services.runs.execution import Stop
    from flujo.services.workspace import Workspace

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="List, show, answer, retry and cancel runs; also `flujo runs`.",
)


class Status(StrEnum):
    """The statuses that a list shows."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    ORPHANED = "orphaned"
    PAUSED = "paused"
    WAITING = "waiting"
    IN_DOUBT = "in_doubt"
    ANSWERED = "answered"
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARKED = "parked"


class Resolution(StrEnum):
    """The outcome of a call in doubt."""

    DONE = "done"
    RETRY = "retry"
    FAIL = "fail"


Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        help="Run ids, their prefixes, or @last.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]


OfBlueprint = Annotated[
    str | None,
    typer.Option(help="List only runs of this blueprint.", autocompletion=completion.blueprints),
]
Kind = Annotated[
    RunKind | None,
    typer.Option(help="List runs (default), tasks of steps in the background, evaluations or cases."),
]
Parent = Annotated[
    str | None,
    typer.Option(
        metavar="RUN", help="List only tasks that this run has launched.", autocompletion=completion.runs
    ),
]
Chain = Annotated[
    str | None,
    typer.Option(
        metavar="RUN", help="List only the runs that continue one another.", autocompletion=completion.runs
    ),
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="List only runs since TIME: 2h ago, 30d ago, or 2026-11-28T09:30."),
]
Order = Annotated[
    RunOrder,
    typer.Option(help="By start (newest, oldest) or by last change (updated); TIME is compared with it."),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES", help=f"Columns of the table: {', '.join(COLUMNS)}; with commas between them."
    ),
]


@app.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[
        list[Status] | None, typer.Option(help="List only runs with this status; repeatable.")
    ] = None,
    blueprint: OfBlueprint = None,
    queue: Annotated[str | None, typer.Option(help="List only runs of this queue.")] = None,
    kind: Kind = None,
    parent: Parent = None,
    chain: Chain = None,
    metadata: options.Conditions = None,
    user: Annotated[str | None, typer.Option(help="List only runs with this user_id.")] = None,
    since: Since = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="List only runs before TIME.")] = None,
    sort: Order = RunOrder.NEWEST,
    columns: Columns = None,
    limit: options.Limit = 100,
    cursor: Annotated[
        str | None, typer.Option(help="Continue a list after this place; the end of each page names it.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="List again every 2 seconds, until Ctrl-C.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """List runs, newest first."""
    from flujo.cli.run_list import Listing, read_columns
    from flujo.services.project.inputs import read_conditions, read_moment

    times = {
        name: read_moment(given, option=f"--{name}")
        for name, given in (("since", since), ("until", until))
        if given is not None
    }
    conditions: TaskConditions = {
        "status": [str(each) for each in status or ()] or None,
        "blueprint": blueprint,
        "queue": queue,
        "metadata_filter": read_conditions(metadata or (), option="--metadata"),
        "user_id": user,
        "kind": kind,
        "parent": parent,
        "chain": chain,
        "order": sort,
        "since": times.get("since"),
        "until": times.get("until"),
    }
    words = options.words(ctx, without=("cursor", "watch"))
    listing = Listing(conditions, limit, cursor, read_columns(columns), ["flujo", "tasks", "list", *words])
    (listing.watch if watch else listing.show)(Invocation.of(ctx), as_json=as_json)


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
    from flujo.cli.task_rendering import show_task
    from flujo.services.inspection.task_client import TaskClient

    invocation = Invocation.of(ctx)
    detail = in_workspace(invocation, lambda ws: TaskClient(ws).get_task(run))
    if as_json:
        invocation.terminal.json(task_data(detail))
    else:
        show_task(invocation.terminal, detail)


@app.command()
def resume(
    ctx: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN[:PAUSE]",
            help="Runs, each with its pause if several questions are open.",
            show_default=False,
            autocompletion=completion.waiting_runs,
        ),
    ] = None,
    select: options.Select = None,
    text: options.Text = None,
    file: options.File = None,
    fields: options.Fields = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Record the answer and exit; do not resume the run.")
    ] = False,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    by: options.By = None,
    paused_ok: options.PausedOk = False,
    as_json: options.AsJson = False,
) -> None:
    """Answer the question of each run and resume it."""
    from flujo.cli import bulk
    from flujo.services.project.inputs import read_input
    from flujo.services.runs.answers import address, way_to_settle

    pause_id = bulk.read_selection(select).get("pause") if select is not None else None
    chosen = bulk.chosen_runs(
        Invocation.of(ctx),
        runs,
        select,
        verb="resume",
        statuses=["paused"],
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )
    given = options.given(text, file, fields)

    def act(run: str) -> None:
        target = address(run, StepPath(pause_id)) if pause_id else run

        def read(pause: "Pause") -> tuple[Any, str]:
            what = f"the answer to `{shown(pause.pause_id)}`"
            try:
                answer = read_input(decoded(pause.answer_schema), given, what=what)
            except InputRejected as error:
                if pause.kind is PauseKind.QUESTION:
                    raise
                raise InputRejected(error.message, hint=way_to_settle(target, pause)) from None
            return answer.value, answer.note

        _answer(
            ctx, target, PauseKind.QUESTION, read, by=by, detach=detach, paused_ok=paused_ok, as_json=as_json
        )

    bulk.each(ctx, chosen, act)


@app.command()
def send(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] EVENT",
            help="The run, unless --key is given, and the name of the event.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ],
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Send it to the run that has waited longest for EVENT with this key."
        ),
    ] = None,
    to_all: Annotated[
        bool, typer.Option("--all", help="With --key: to every run that waits for it now.")
    ] = False,
    event_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Your id of the event; sent again, it does nothing."),
    ] = None,
    text: options.Text = None,
    file: options.File = None,
    fields: options.Fields = None,
    by: options.By = None,
    as_json: options.AsJson = False,
) -> None:
    """Send an event to a run that waits for it, now or later."""
    from flujo.cli.sending import Address, send

    address = Address.of(words, key, to_all=to_all)
    given = options.given(text, file, fields)
    send(Invocation.of(ctx), address, given, event_id=event_id, actor=options.actor(by), as_json=as_json)


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
    runs: Runs = None,
    select: options.Select = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    by: options.By = None,
    paused_ok: options.PausedOk = False,
    as_json: options.AsJson = False,
) -> None:
    """Resume parked runs, and retry the failed step of failed ones."""
    from flujo.cli import bulk
    from flujo.cli.run_command import conclude, drive
    from flujo.services.runs import blueprint_runs

    invocation, actor = Invocation.of(ctx), options.actor(by)
    chosen = bulk.chosen_runs(
        invocation,
        runs,
        select,
        verb="retry",
        statuses=["failed", "parked"],
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )

    def act(run: str) -> None:
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

    bulk.each(ctx, chosen, act)


@app.command()
def cancel(
    ctx: typer.Context,
    runs: Runs = None,
    select: options.Select = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    by: options.By = None,
    as_json: options.AsJson = False,
) -> None:
    """Cancel runs. The process that executes a run stops it; without one, this command does."""
    from flujo.cli import bulk
    from flujo.cli.run_command import in_workspace
    from flujo.cli.task_rendering import show_cancelled
    from flujo.services.inspection.task_client import TaskClient
    from flujo.services.runs import blueprint_runs
    from flujo.services.runs.run_services import notifier_of

    invocation, actor = Invocation.of(ctx), options.actor(by)
    statuses = [str(status) for status in blueprint_runs.CANCELLABLE]
    chosen = bulk.chosen_runs(
        invocation, runs, select, verb="cancel", statuses=statuses, dry_run=dry_run, yes=yes, as_json=as_json
    )

    def act(run: str) -> None:
        async def work(workspace: "Workspace") -> "TaskDetail":
            store = await workspace.store()
            notifier = partial(notifier_of, workspace, store)
            record = await blueprint_runs.cancel(
                store,
                run,
                actor,
                clock=workspace.clock,
                notifier=notifier,
                resuming=blueprint_runs.resuming_in(workspace, actor),
            )
            return await TaskClient(workspace).get_task(record.run_id)

        detail = in_workspace(invocation, work)
        if as_json:
            invocation.terminal.json({**run_data(detail.task), "in_doubt": calls_data(detail.in_doubt)})
        else:
            show_cancelled(invocation.terminal, detail)

    bulk.each(ctx, chosen, act)


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
    from flujo.cli.run_command import conclude, drive, result_data
    from flujo.services.inspection.formatting import short_id
    from flujo.services.runs import blueprint_runs, chains
    from flujo.services.runs.answers import chosen

    invocation, actor = Invocation.of(ctx), options.actor(by)
    name, _, typed = run.partition(":")

    async def work(workspace: "Workspace", progress: "Progress", stop: "Stop") -> Any:
        store = await workspace.store()
        record = await chains.find_last(store, name)
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
            shown=pause,
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
        invocation.terminal.say("answer recorded; a worker or an open runner of its pipeline resumes the run")
        invocation.terminal.next(command("flujo", "resume", short_id(result.run_id)), "resume it here")
    else:
        invocation.terminal.say(result.note)
        invocation.terminal.next(command("flujo", "trace", short_id(result.run_id)), "show its progress")
