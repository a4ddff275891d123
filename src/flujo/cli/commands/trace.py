"""`flujo trace RUN`: shows what happened in a run, step by step."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from flujo.cli import completion, formatting, options
from flujo.cli.invocation import Invocation
from flujo.cli.terminal import as_json as json_text

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Format(StrEnum):
    """The output format."""

    TREE = "tree"
    HTML = "html"
    OTLP = "otlp"


@app.command()
def trace(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run id, its prefix, @last, or a file of `flujo export`.",
            autocompletion=completion.runs,
        ),
    ] = "@last",
    step: Annotated[
        str | None,
        typer.Argument(
            metavar="STEP",
            help="Show only this step and its substeps; a path such as `draft[1]/write` or `draft.1/write`.",
            show_default=False,
            autocompletion=completion.steps,
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Show values in full, and the steps of background tasks.")
    ] = False,
    messages: Annotated[
        bool,
        typer.Option("--messages", help="Show the messages to and from the model of an agent."),
    ] = False,
    form: Annotated[
        Format,
        typer.Option(
            "--format", help="Output format; html is one file with the whole run, otlp its spans as JSON."
        ),
    ] = Format.TREE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it to FILE.", show_default=False),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what happened in a run, step by step."""
    from flujo.cli import event_loop
    from flujo.cli.listing import next_for
    from flujo.cli.run_command import in_workspace
    from flujo.cli.step_rendering import show_step
    from flujo.cli.trace_rendering import acts_data, node_data, show_family, show_messages, show_trace
    from flujo.services.inspection.file_traces import get_exported
    from flujo.services.inspection.otlp import otlp_of
    from flujo.services.inspection.task_client import TaskClient
    from flujo.services.replay.sources import is_file

    invocation = Invocation.of(ctx)
    _require_fitting(form, output, others=messages or as_json or step is not None)
    if form is Format.OTLP:
        _write(invocation, json_text(in_workspace(invocation, lambda ws: otlp_of(ws, run))), output)
        return
    is_page = form is Format.HTML
    wanted: dict[str, Any] = {
        "transcripts": messages or as_json or is_page or step is not None,
        "tracebacks": invocation.debug,
        "children": full or as_json or is_page,
        "step": None if messages else step,
    }
    if is_file(run):
        detail = event_loop.run(get_exported(run, **wanted))
    else:
        detail = in_workspace(invocation, lambda ws: TaskClient(ws).get_task(run, **wanted))
    if is_page:
        from flujo.cli.trace_page import page

        _write(invocation, page(detail, full=full), output)
        return
    shown = detail.trace if step is None else detail.trace.at(step)
    if as_json:
        facts = {
            "lock_digest": detail.lock_digest,
            "warnings": detail.warnings,
            "acts": acts_data(detail.acts),
            **({"tracebacks": dict(detail.tracebacks)} if invocation.debug else {}),
        }
        invocation.terminal.json({"run_id": detail.task.run_id, **facts, **node_data(shown)})
        return
    if messages:
        show_messages(invocation.terminal, detail.trace.conversation(shown))
        return
    lock = f"  lock {detail.lock_digest[:12]}" if detail.lock_digest else ""
    title = f"{detail.task.pipeline}  {formatting.short_id(detail.task.run_id)}{lock}"
    if step is None:
        show_trace(invocation.terminal, detail.trace, title=title, full=full)
    else:
        show_step(
            invocation.terminal,
            detail.trace,
            shown,
            title=title,
            full=full,
            tracebacks=detail.tracebacks,
        )
    show_family(invocation.terminal, detail)
    for warning in detail.warnings:
        invocation.terminal.say(f"warning: {warning}", "yellow")
    status = str(detail.task.display_status)
    if status not in ("completed", "cancelled", "running") and not is_file(run):
        code = detail.error.code if detail.error else ""
        invocation.terminal.next(next_for(detail.task.run_id, status, code))


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
