"""`flujo run`: runs a blueprint and writes its output to stdout."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.queues import DEFAULT_QUEUE
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.cli.progress import Progress
    from flujo.domain.models import PipelineResult
    from flujo.services.runs.execution import Stop
    from flujo.services.runs.run_request import Request
    from flujo.services.workspace import Blueprint, Workspace

    _Load = Callable[[Workspace], tuple[Blueprint, Request]]
    """Reads the blueprint and the run's input in an open workspace."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)

BlueprintName = Annotated[
    str | None,
    typer.Argument(
        metavar="BLUEPRINT",
        help="A blueprint, by path or name. Without it, list the blueprints.",
        show_default=False,
        autocompletion=completion.blueprints,
    ),
]
Context = Annotated[
    list[str] | None,
    typer.Option("--context", metavar="K=V", help="A field of the initial context; repeatable."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="K=V",
        help="Override agents.NAME.model or .instructions for this run; repeatable.",
    ),
]
ByStep = Annotated[
    bool, typer.Option("--step", help="Wait at the terminal after every step, and show what it returned.")
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Put the run into a queue for a worker, print its id and exit.")
]
QueueName = Annotated[
    str | None, typer.Option("--queue", metavar="NAME", help="With --detach: its queue.  [default: default]")
]
Priority = Annotated[
    int | None,
    typer.Option(
        "--priority", metavar="N", help="With --detach: -1000000 to 1000000, each worth a minute of waiting."
    ),
]
Delay = Annotated[
    str | None,
    typer.Option("--delay", metavar="TIME", help="With --detach: no worker takes it before: 10m, 2h."),
]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a detached run is queued."""

    queue: str
    priority: int
    delay_s: float

    @classmethod
    def of(
        cls, queue: str | None, priority: int | None, delay_s: float | None, *, detach: bool
    ) -> "_Place | None":
        """Return what the options say; None for a run that is executed here.

        Raises:
            SettingsError: an option of a queue without `--detach`.
        """
        if detach:
            return cls(queue or DEFAULT_QUEUE, priority or 0, delay_s or 0.0)
        for option, value in {"--queue": queue, "--priority": priority, "--delay": delay_s}.items():
            if value is not None:
                raise SettingsError(
                    f"`{option}` is for runs in a queue, and this one is executed here",
                    hint=f"add `--detach`, or leave `{option}` out",
                )
        return None


class IfExists(StrEnum):
    """What to do when a run with this id exists."""

    FAIL = "fail"
    RESUME = "resume"
    RETURN = "return"


@app.command()
def run(
    ctx: typer.Context,
    blueprint: BlueprintName = None,
    text: options.Text = None,
    file: options.File = None,
    fields: options.Fields = None,
    context: Context = None,
    metadata: options.Metadata = None,
    overrides: Overrides = None,
    run_id: Annotated[str | None, typer.Option("--run-id", metavar="ID", help="The run's id.")] = None,
    if_exists: Annotated[
        IfExists | None,
        typer.Option(help="What to do when a run with --run-id exists. [default: attach to it]"),
    ] = None,
    wait: options.Wait = False,
    detach: Detach = False,
    queue: QueueName = None,
    priority: Priority = None,
    delay: Delay = None,
    paused_ok: options.PausedOk = False,
    as_json: options.AsJson = False,
    by_step: ByStep = False,
    events: options.Events = False,
) -> None:
    """Run a blueprint; without BLUEPRINT, list them."""
    invocation = Invocation.of(ctx)
    if blueprint is None:
        _list(invocation, as_json=as_json)
        return
    from flujo.services.project import inputs
    from flujo.services.runs.run_request import NEAR_S, Request

    path = invocation.project.locate(blueprint, invocation.folder)
    given = options.given(text, file, fields)
    labels = inputs.read_metadata(metadata or ())
    models = inputs.read_overrides(overrides or ())
    delay_s = None if delay is None else inputs.read_duration(delay, option="--delay")
    place = _Place.of(queue, priority, delay_s, detach=detach)

    def load(workspace: "Workspace") -> "tuple[Blueprint, Request]":
        loaded = workspace.load(path, overrides=models)
        _mention_warnings(invocation, loaded)
        value = inputs.read_input(loaded.pipeline.input_schema, given)
        if value.note:
            invocation.terminal.say(value.note, "dim")
        start = inputs.read_fields(context or (), loaded.pipeline.context_schema, option="--context")
        return loaded, Request(
            value.value,
            start,
            run_id,
            labels,
            if_exists.value if if_exists else "attach",
            longest_wait_s=math.inf if wait else NEAR_S,
        )

    _require_display(by_step=by_step, events=events, as_json=as_json, detach=detach)
    if place is None:
        _execute(invocation, load, as_json=as_json, paused_ok=paused_ok, by_step=by_step)
    else:
        _submit(invocation, load, place, as_json=as_json)


def _require_display(*, by_step: bool, events: bool, as_json: bool, detach: bool) -> None:
    """Check that the ways to show a run do not exclude each other.

    Raises:
        SettingsError: two of them do.
    """
    wanted = {"--step": by_step, "--events": events, "--detach": detach, "--json": by_step and as_json}
    names = [name for name, is_given in wanted.items() if is_given]
    if len(names) > 1:
        raise SettingsError(f"{names[0]} and {names[1]} exclude each other", hint="leave one of them out")


def _execute(invocation: Invocation, load: "_Load", *, as_json: bool, paused_ok: bool, by_step: bool) -> None:
    """Execute a run here, and show its result."""
    from flujo.cli.run_command import conclude, drive
    from flujo.services.runs import blueprint_runs

    displays: list[Progress] = []

    async def work(workspace: "Workspace", progress: "Progress", stop: "Stop") -> Any:
        loaded, request = load(workspace)
        displays.append(progress)
        return await blueprint_runs.start(workspace, loaded, request, sink=progress, stop=stop)

    def answered(result: "PipelineResult[Any, Any]") -> None:
        if not any(display.run_id for display in displays):
            invocation.terminal.say(f"run {result.run_id} already exists; no step was executed", "dim")
        conclude(invocation, result, as_json=as_json, paused_ok=paused_ok)

    drive(invocation, work, creates=True, answered=answered, by_step=by_step)


def _submit(invocation: Invocation, load: "_Load", place: _Place, *, as_json: bool) -> None:
    """Put a run into a queue, and print its id."""
    from flujo.cli.run_command import in_workspace
    from flujo.services.inspection.formatting import short_id
    from flujo.services.runs import blueprint_runs

    terminal, queue = invocation.terminal, place.queue

    async def work(workspace: "Workspace") -> Any:
        loaded, request = load(workspace)
        return await blueprint_runs.submit(
            workspace, loaded, request, queue=queue, priority=place.priority, delay_s=place.delay_s
        )

    record, note = in_workspace(invocation, work, creates=True)
    if as_json:
        terminal.json({"run_id": record.run_id, "status": str(record.status), "queue": queue, "note": note})
    else:
        terminal.data(record.run_id)
    if note:
        terminal.say(note, "yellow")
    terminal.next(command("flujo", "tasks", "show", short_id(record.run_id)), "show how far it is")


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
