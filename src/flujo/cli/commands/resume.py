"""`flujo resume`: continues a paused, failed or interrupted run."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation

if TYPE_CHECKING:
    from flujo.cli.progress import Progress
    from flujo.services.runs.execution import Stop
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def resume(
    ctx: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run id, its prefix, or @last. Without it, list resumable runs.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option("--accept-changes", help="Use the files on disk instead of those the run started with."),
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Retry the step that failed.")] = False,
    budgets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="budget.LIMIT=AMOUNT",
            help="Set a limit for this run, or with budget.RULE.LIMIT one of a rule as it counts this run.",
            show_default=False,
        ),
    ] = None,
    wait: options.Wait = False,
    by: options.By = None,
    paused_ok: options.PausedOk = False,
    as_json: options.AsJson = False,
    events: options.Events = False,  # noqa: ARG001 - the root command has read it
) -> None:
    """Continue a run; without RUN, list the resumable runs."""
    from flujo.cli.run_command import conclude, drive
    from flujo.services.runs import blueprint_runs

    invocation = Invocation.of(ctx)
    if run is None:
        from flujo.cli.run_list import Listing

        statuses = [str(status) for status in blueprint_runs.CANCELLABLE]
        words = ["flujo", "tasks", "list", *(word for each in statuses for word in ("--status", each))]
        nothing = "no resumable runs: none is paused, failed or interrupted"
        Listing({"status": statuses}, words=words, nothing=nothing).show(invocation, as_json=as_json)
        return

    actor = options.actor(by)

    async def work(workspace: "Workspace", progress: "Progress", stop: "Stop") -> Any:
        return await blueprint_runs.resume(
            workspace,
            run,
            accept_changes=accept_changes,
            retry_failed=retry_failed,
            budgets=budgets or (),
            stays=wait,
            actor=actor,
            sink=progress,
            stop=stop,
            say=invocation.terminal.say,
        )

    drive(invocation, work, answered=partial(conclude, invocation, as_json=as_json, paused_ok=paused_ok))
