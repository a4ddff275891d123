"""`flujo evals`: scores files of cases, lists and compares scores, and records those of people."""

from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import cases_commands, completion, options
from flujo.cli.invocation import Invocation
from flujo.cli.run_command import in_workspace
from flujo.domain.commands import command
from flujo.domain.evaluations import EvaluationQuery
from flujo.domain.paths import shown
from flujo.domain.wording import dollars, plural
from flujo.services.inspection import formatting
from flujo.services.inspection.views import evaluation_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.terminal import Terminal
    from flujo.domain.evaluations import Evaluation
    from flujo.domain.run import RunRecord
    from flujo.services.workspace import Workspace

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Run files of cases, list and compare scores, rate a run.",
)

Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run id, its prefix, or @last.", autocompletion=completion.runs),
]


@app.callback()
def evals() -> None:
    """Run files of cases, list and compare scores, rate a run."""


app.command()(cases_commands.run)
app.command()(cases_commands.compare)
app.command()(cases_commands.add)


@app.command("list")
def list_evaluations(
    ctx: typer.Context,
    blueprint: Annotated[str | None, typer.Option(help="List only scores of this blueprint.")] = None,
    evaluator: Annotated[str | None, typer.Option(help="List only scores of this evaluator.")] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="List only scores since TIME: 2h, 30d, or a date."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="List only scores before TIME.")] = None,
    below: Annotated[
        float | None, typer.Option(min=0, max=1, help="List only scores lower than this.")
    ] = None,
    lock: Annotated[
        str | None,
        typer.Option(metavar="DIGEST", help="List only scores of runs with this lock, or its beginning."),
    ] = None,
    limit: options.Limit = 100,
    as_json: options.AsJson = False,
) -> None:
    """List scores, the newest first."""
    from flujo.services.given import seconds_of
    from flujo.services.project.inputs import read_moment
    from flujo.services.project.system import SystemClock

    invocation = Invocation.of(ctx)
    start = None if since is None else read_moment(since, option="--since")
    end = None if until is None else read_moment(until, option="--until")
    query = EvaluationQuery(
        pipeline=blueprint,
        evaluator=evaluator,
        lock=lock,
        below=below,
        since=seconds_of(start, "since", SystemClock()),
        until=seconds_of(end, "until", SystemClock()),
        limit=limit,
    )

    async def found(workspace: "Workspace") -> "Sequence[Evaluation]":
        return await (await workspace.store()).evaluations(query)

    page = in_workspace(invocation, found)
    if as_json:
        invocation.terminal.json([evaluation_data(each) for each in page])
        return
    if not page:
        invocation.terminal.say("no matching scores")
        return
    show_evaluations(invocation.terminal, page)
    if len(page) == limit:
        invocation.terminal.say(f"the newest {plural(limit, 'score')}; `--limit` lists more")


@app.command()
def show(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run id, its prefix, or @last; or a set of runs: lock:DIGEST, a lockfile, FROM..TO.",
            autocompletion=completion.runs,
        ),
    ],
    as_json: options.AsJson = False,
) -> None:
    """Show the scores of a run, or the means of a set of runs.

    Of a run it also shows the evaluations that have not ended.
    """
    invocation = Invocation.of(ctx)
    if not cases_commands.is_shown_as_set(invocation, run, as_json=as_json):
        _show_run(invocation, run, as_json=as_json)


def _show_run(invocation: Invocation, run: str, *, as_json: bool) -> None:
    from flujo.domain.queues import RunKind
    from flujo.domain.run import ENDS_OF_TASKS, RunQuery

    async def found(
        workspace: "Workspace",
    ) -> "tuple[RunRecord, Sequence[Evaluation], Sequence[RunRecord]]":
        store = await workspace.store()
        record = await store.find(run)
        scores = await store.evaluations(EvaluationQuery(run_id=record.run_id, limit=10_000))
        own = await store.runs(RunQuery(parent=record.run_id, kinds=(RunKind.EVAL,), limit=10_000))
        return record, scores, [each for each in own if each.status not in ENDS_OF_TASKS]

    record, scores, open_ones = in_workspace(invocation, found)
    terminal = invocation.terminal
    if as_json:
        pending = [{"run_id": each.run_id, "status": str(each.status)} for each in open_ones]
        data = [evaluation_data(each) for each in scores]
        terminal.json({"run_id": record.run_id, "evaluations": data, "pending": pending})
        return
    if scores:
        show_evaluations(terminal, scores)
    else:
        terminal.say(f"run {formatting.short_id(record.run_id)} has no scores")
    if open_ones:
        terminal.say(f"{plural(len(open_ones), 'evaluation')} not ended yet")
        terminal.next(command("flujo", "worker", "--once"), "execute those without a process")


@app.command()
def rate(
    ctx: typer.Context,
    run: Run,
    score: Annotated[float, typer.Option(metavar="NUMBER", help="From 0, the worst, to 1.")],
    path: Annotated[
        str | None,
        typer.Option(metavar="STEP", help="The step whose output is rated. Default: the output of the run."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name of the rating, for lists.  [default: rating]")
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why.")] = None,
    by: options.By = None,
    as_json: options.AsJson = False,
) -> None:
    """Record the score that a person gives to a run."""
    from flujo.services.scoring import ratings

    invocation = Invocation.of(ctx)
    actor = options.actor(by)

    async def work(workspace: "Workspace") -> "Evaluation":
        return await ratings.rate(
            await workspace.store(),
            run,
            score,
            path=path,
            name=name,
            reason=reason,
            actor=actor,
            random=workspace.random,
        )

    rated = in_workspace(invocation, work)
    if as_json:
        invocation.terminal.json(evaluation_data(rated))
        return
    where = f" at `{shown(rated.path)}`" if rated.path else ""
    invocation.terminal.say(
        f"rated run {formatting.short_id(rated.run_id)}{where}: {rated.evaluator} {rated.score:g}"
    )


# Rendering -----------------------------------------------------------------------------------------------

_COLUMNS = {
    "run": "RUN",
    "path": "PATH",
    "evaluator": "EVALUATOR",
    "score": "SCORE",
    "bar": "",
    "by": "BY",
    "cost": "COST",
    "created": "CREATED",
    "detail": "DETAIL",
}


def show_evaluations(terminal: "Terminal", page: "Sequence[Evaluation]") -> None:
    """Write evaluations to stdout as a table; a column without values is left out."""
    rows = [_row(each) for each in page]
    filled = {name: title for name, title in _COLUMNS.items() if any(row[name] for row in rows)}
    terminal.table(filled, rows)


def _row(each: "Evaluation") -> dict[str, str]:
    return {
        "run": formatting.short_id(each.run_id),
        "path": shown(each.path) if each.path else "",
        "evaluator": each.evaluator,
        "score": "none" if each.score is None else f"{each.score:.2f}",
        "bar": "" if each.score is None else formatting.bar(each.score),
        "by": formatting.brief(each.by, 40),
        "cost": dollars(each.cost_micro_usd / 1e6) if each.cost_micro_usd else "",
        "created": formatting.moment(each.created_at),
        "detail": formatting.brief(each.error or each.reason or ""),
    }
