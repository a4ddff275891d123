"""`flujo trace RUN`: shows what happened in a run, step by step."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.cli.run_arguments import RunOrFile
from flujo.services.inspection.formatting import as_json as json_text
from flujo.services.inspection.trace_views import detail_data

if TYPE_CHECKING:
    from flujo.services.inspection.task_detail import TaskDetail

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Format(StrEnum):
    """The output format."""

    TREE = "tree"
    HTML = "html"
    OTLP = "otlp"


Part = Annotated[
    str | None,
    typer.Argument(
        metavar="STEP",
        help="Show only this step and its substeps; a path such as `draft[1]/write` or `draft.1/write`.",
        show_default=False,
        autocompletion=completion.steps,
    ),
]
Full = Annotated[bool, typer.Option("--full", help="Show values in full, and the steps of background tasks.")]
Messages = Annotated[
    bool, typer.Option("--messages", help="Show the messages to and from the model of an agent.")
]
Form = Annotated[
    Format,
    typer.Option(
        "--format", help="Output format; html is one file with the whole run, otlp its spans as JSON."
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write it to FILE.", show_default=False),
]


@app.command()
def trace(
    ctx: typer.Context,
    run: RunOrFile = "@last",
    step: Part = None,
    full: Full = False,
    messages: Messages = False,
    form: Form = Format.TREE,
    output: Output = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what happened in a run, step by step."""
    from flujo.cli.run_command import in_workspace
    from flujo.cli.step_rendering import show_detail
    from flujo.services.inspection.otlp import otlp_of
    from flujo.services.replay.sources import is_file

    invocation = Invocation.of(ctx)
    _require_fitting(form, output, others=messages or as_json or step is not None)
    if form is Format.OTLP:
        _write(invocation, json_text(in_workspace(invocation, lambda ws: otlp_of(ws, run))), output)
        return
    is_page = form is Format.HTML
    detail = _read(
        invocation,
        run,
        is_file=is_file(run),
        transcripts=messages or as_json or is_page or step is not None,
        tracebacks=invocation.debug,
        children=full or as_json or is_page,
        step=None if messages else step,
    )
    if is_page:
        from flujo.cli.trace_page import page

        _write(invocation, page(detail, full=full), output)
        return
    shown = detail.trace if step is None else detail.trace.at(step)
    if as_json:
        invocation.terminal.json(
            {
                **detail_data(detail, shown),
                **({"tracebacks": dict(detail.tracebacks)} if invocation.debug else {}),
            }
        )
    elif messages:
        from flujo.cli.trace_rendering import show_messages

        show_messages(invocation.terminal, detail.trace.conversation(shown))
    else:
        part = None if step is None else shown
        show_detail(invocation.terminal, detail, part, full=full, is_stored=not is_file(run))


def _read(invocation: Invocation, run: str, *, is_file: bool, **wanted: Any) -> "TaskDetail":
    """Return a run of the database, or of a file, with its history."""
    from flujo.cli import event_loop
    from flujo.cli.run_command import in_workspace
    from flujo.services.inspection.file_traces import get_exported
    from flujo.services.inspection.task_client import TaskClient

    found: TaskDetail = (
        event_loop.run(get_exported(run, **wanted))
        if is_file
        else in_workspace(invocation, lambda ws: TaskClient(ws).get_task(run, **wanted))
    )
    return found


def _require_fitting(form: Format, output: Path | None, *, others: bool) -> None:
    """Refuse options that do not fit the format.

    Raises:
        BadParameter: they do not fit.
    """
    if form is Format.TREE and output is not None:
        raise typer.BadParameter(
            "format tree is written to no file; add --format html or otlp", param_hint="--output"
        )
    if form is not Format.TREE and others:
        raise typer.BadParameter(
            f"format {form} has the whole run; leave out STEP, --messages and --json", param_hint="--format"
        )


def _write(invocation: Invocation, text: str, output: Path | None) -> None:
    """Write a text to stdout or to a file."""
    if output is None:
        invocation.terminal.data(text)
    else:
        invocation.terminal.save(text, invocation.folder, output)
