"""`flujo acts`: who did what, over all runs, as a table or as JSON to keep elsewhere."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain.acts import ActQuery, Verb
from flujo.domain.wording import plural
from flujo.services.inspection import formatting
from flujo.services.inspection.trace_views import acts_data

if TYPE_CHECKING:
    from flujo.domain.acts import Act
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_COLUMNS = {"at": "AT", "by": "BY", "via": "VIA", "verb": "VERB", "object": "OBJECT", "run": "RUN"}


@app.command()
def acts(
    ctx: typer.Context,
    verbs: Annotated[
        list[Verb] | None, typer.Option("--verb", help="List only acts of this kind; repeatable.")
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="List only acts of this person.")] = None,
    about: Annotated[
        str | None,
        typer.Option(
            "--object",
            metavar="TEXT",
            help="List only acts on this: a question, a schedule, a token, a user.",
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="List only acts on this run.", autocompletion=completion.runs),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="List only acts since TIME: 2h, 30d (ago), or 2026-11-28T09:30."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="List only acts before TIME.")] = None,
    limit: options.Limit = 100,
    as_json: options.AsJson = False,
) -> None:
    """List who answered, cancelled, logged in and so on."""
    from flujo.cli.run_command import in_workspace
    from flujo.services.given import seconds_of
    from flujo.services.project.inputs import read_moment
    from flujo.services.project.system import SystemClock

    invocation, clock = Invocation.of(ctx), SystemClock()
    terminal = invocation.terminal
    start = None if since is None else read_moment(since, option="--since")
    end = None if until is None else read_moment(until, option="--until")
    query = ActQuery(
        object=about,
        verbs=tuple(verbs or ()),
        by=by,
        since=seconds_of(start, "since", clock),
        until=seconds_of(end, "until", clock),
        limit=limit,
    )

    async def found(workspace: "Workspace") -> "list[Act]":
        store = await workspace.store()
        run_id = None if run is None else (await store.find(run)).run_id
        return await store.recorded_acts(replace(query, run_id=run_id))

    page = in_workspace(invocation, found)
    if as_json:
        terminal.json(
            [{"run_id": act.run_id, **data} for act, data in zip(page, acts_data(page), strict=True)]
        )
    elif page:
        terminal.table(_COLUMNS, [_row(act) for act in page])
        if len(page) == limit:
            terminal.say(f"the newest {plural(limit, 'act')}; `--until` or `--limit` list more")
    else:
        terminal.say("no matching acts")


def _row(act: "Act") -> dict[str, Any]:
    return {
        "at": formatting.moment(act.at or 0.0),
        "by": act.actor.by,
        "via": str(act.actor.via),
        "verb": str(act.verb).replace("_", " "),
        "object": formatting.brief(act.object),
        "run": formatting.short_id(act.run_id or ""),
    }
