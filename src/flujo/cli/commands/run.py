"""`flujo run`: runs a blueprint and writes its output to stdout."""

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command

if TYPE_CHECKING:
    from flujo.cli.progress import Progress
    from flujo.services.runs.execution import Stop
    from flujo.services.workspace import Blueprint, Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class IfExists(StrEnum):
    """What to do when a run with this id exists."""

    FAIL = "fail"
    RESUME = "resume"
    RETURN = "return"


@app.command()
def run(
    ctx: typer.Context,
    blueprint: Annotated[
        str | None,
        typer.Argument(
            metavar="BLUEPRINT",
            help="A blueprint, by path or name. Without it, list the blueprints.",
            show_default=False,
            autocompletion=completion.blueprints,
        ),
    ] = None,
    text: options.Text = None,
    file: options.File = None,
    fields: options.Fields = None,
    context: Annotated[
        list[str] | None,
        typer.Option("--context", metavar="K=V", help="A field of the initial context; repeatable."),
    ] = None,
    metadata: options.Metadata = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="Override agents.NAME.model for this run; repeatable."),
    ] = None,
    run_id: Annotated[str | None, typer.Option("--run-id", metavar="ID", help="The run's id.")] = None,
    if_exists: Annotated[
        IfExists | None,
        typer.Option(help="What to do when a run with --run-id exists. [default: attach to it]"),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end of each `sleep` here, however long it is.")
    ] = False,
    paused_ok: options.PausedOk = False,
    as_json: options.AsJson = False,
) -> None:
    """Run a blueprint; without BLUEPRINT, list them."""
    invocation = Invocation.of(ctx)
    if blueprint is None:
        _list(invocation, as_json=as_json)
        return
    from flujo.cli.run_command import conclude, drive
    from flujo.services.project import inputs
    from flujo.services.runs import blueprint_runs
    from flujo.services.runs.run_request import NEAR_S, Request

    path = invocation.project.locate(blueprint, invocation.folder)
    given = options.given(text, file, fields)
    labels = inputs.read_metadata(metadata or ())
    models = inputs.read_overrides(overrides or ())
    displays: list[Progress] = []

    async def work(workspace: "Workspace", progress: "Progress", stop: "Stop") -> Any:
        loaded = workspace.load(path, overrides=models)
        _mention_warnings(invocation, loaded)
        value = inputs.read_input(loaded.pipeline.input_schema, given)
        if value.note:
            invocation.terminal.say(value.note, "dim")
        start = inputs.read_fields(context or (), loaded.pipeline.context_schema, option="--context")
        request = Request(
            value.value,
            start,
            run_id,
            labels,
            if_exists.value if if_exists else "attach",
            longest_wait_s=math.inf if wait else NEAR_S,
        )
        displays.append(progress)
        return await blueprint_runs.start(workspace, loaded, request, sink=progress, stop=stop)

    result = drive(invocation, work, creates=True)
    if not any(display.run_id for display in displays):
        invocation.terminal.say(f"run {result.run_id} already exists; no step was executed", "dim")
    conclude(invocation, result, as_json=as_json, paused_ok=paused_ok)


def _mention_warnings(invocation: Invocation, loaded: "Blueprint") -> None:
    """Mention that there are warnings; `flujo validate` shows them."""
    from flujo.cli.diagnostic_rendering import summary

    warnings = [finding for finding in loaded.diagnostics if finding.severity == "warning"]
    if warnings:
        invocation.terminal.say(
            f"{summary(warnings)}: `{command('flujo', 'validate', loaded.path)}` shows them", "yellow"
        )


def _list(invocation: Invocation, *, as_json: bool) -> None:
    """List the project's blueprints."""
    terminal = invocation.terminal
    known = [
        {"name": each.name, "path": each.path, "description": each.description}
        for each in invocation.project.blueprints()
    ]
    if as_json:
        terminal.json(known)
    elif known:
        terminal.table({"name": "NAME", "path": "PATH", "description": "DESCRIPTION"}, known)
        terminal.next(
            command("flujo", "run", known[0]["name"]), "run one; `flujo run --help` shows how to pass input"
        )
    else:
        terminal.say("no blueprints found")
        terminal.next(command("flujo", "init"), "create a project with a first blueprint")
