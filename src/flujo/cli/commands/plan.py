"""`flujo plan BLUEPRINT`: what a run will probably cost."""

from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import completion, options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.wording import dollars
from flujo.exceptions import DatabaseMissing

if TYPE_CHECKING:
    from flujo.services.forecast.forecast import Forecast
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def plan(
    ctx: typer.Context,
    blueprint: Annotated[
        str,
        typer.Argument(
            metavar="BLUEPRINT", help="A blueprint, by path or name.", autocompletion=completion.blueprints
        ),
    ],
    text: options.Text = None,
    file: options.File = None,
    fields: options.Fields = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost",
            metavar="USD",
            min=0,
            help="Exit with 6 if a run may cost more, or if nothing bounds its cost.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Forecast requests, tokens and cost of a run, without making it."""
    from flujo.cli.plan_rendering import show_forecast
    from flujo.cli.run_command import in_workspace
    from flujo.services.checks.validation import compiled_or_refused
    from flujo.services.forecast.forecast import NOT_GIVEN, forecast
    from flujo.services.project import inputs

    invocation = Invocation.of(ctx)
    project = invocation.project
    pipeline = compiled_or_refused(project, project.locate(blueprint, invocation.folder))
    is_given = not (text is None and file is None and not fields)
    given = options.given(text, file, fields) if is_given else None
    value = NOT_GIVEN if given is None else inputs.read_input(pipeline.input_schema, given).value

    async def work(workspace: "Workspace") -> "Forecast":
        try:
            store = await workspace.store()
        except DatabaseMissing:  # the first run creates it
            store = None
        return await forecast(pipeline, project, given=value, store=store)

    found = in_workspace(invocation, work)
    if as_json:
        invocation.terminal.json(found.to_json())
    else:
        show_forecast(invocation.terminal, found)
    most = found.most_usd
    if max_cost is not None and (most is None or most > max_cost):
        unknown = "its cost is unknown" if found.unpriced else "nothing bounds its cost"
        why = unknown if most is None else f"it may cost {dollars(most)}"
        invocation.terminal.say(f"over --max-cost {max_cost:g}: {why}", "red")
        raise typer.Exit(ExitCode.BUDGET)
    if not as_json:
        invocation.terminal.next(command("flujo", "run", blueprint), "run it")
