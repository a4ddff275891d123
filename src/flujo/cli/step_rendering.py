"""Renders a run, or one step of it: its input, prompt, attempts, changes of the context and output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.cli.listing import next_for
from flujo.cli.trace_rendering import (
    LABEL,
    lines_below,
    node_line,
    reasons,
    said,
    sent,
    show_family,
    show_trace,
    way,
)
from flujo.domain.paths import shown
from flujo.domain.usage import NOTHING
from flujo.governance.sink import GATE
from flujo.services.inspection import formatting
from flujo.services.inspection.value_text import change, value_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flujo.cli.terminal import Terminal
    from flujo.services.inspection.task_detail import TaskDetail
    from flujo.services.inspection.trace_tree import AttemptMade, TraceNode

_SHORT = 400
"""How many characters of a value are shown without `--full`."""


def show_detail(
    terminal: Terminal, detail: TaskDetail, step: TraceNode | None, *, full: bool, is_stored: bool
) -> None:
    """Write a run, or a step of it, as text; and the command that comes next, if the run `is_stored`."""
    lock = f"  lock {detail.lock_digest[:12]}" if detail.lock_digest else ""
    title = f"{detail.task.pipeline}  {formatting.short_id(detail.task.run_id)}{lock}"
    if step is None:
        show_trace(terminal, detail.trace, title=title, full=full)
    else:
        show_step(terminal, detail.trace, step, title=title, full=full, tracebacks=detail.tracebacks)
    show_family(terminal, detail)
    for warning in detail.warnings:
        terminal.say(f"warning: {warning}", "yellow")
    status = str(detail.task.display_status)
    if status not in ("completed", "cancelled", "running") and is_stored:
        terminal.next(next_for(detail.task.run_id, status, detail.error))


def show_step(
    terminal: Terminal,
    root: TraceNode,
    step: TraceNode,
    *,
    title: str,
    full: bool,
    tracebacks: Mapping[str, str],
) -> None:
    """Write one step, and the steps in it, to stdout.

    Args:
        terminal: the output.
        root: the run's node.
        step: the node of the step.
        title: the text of the first line, which names the run.
        full: show values in full.
        tracebacks: the tracebacks to show, by their digests.
    """
    terminal.data(terminal.styled(f"{title}  {shown(step.path)}", "bold", to=terminal.out))
    terminal.data(node_line(terminal, step))
    stem = "│  " if step.children else "   "
    for name, text in _facts(root, step, None if full else _SHORT):
        label = terminal.styled(f"{name:<{LABEL}}", "dim", to=terminal.out)
        first, *rest = text.removesuffix("\n").split("\n")
        terminal.data(f"{stem}{label}{first}".rstrip())
        for line in rest:
            terminal.data(f"{stem}{'':<{LABEL}}{line}".rstrip())
    for line in lines_below(terminal, step, "", full=full):
        terminal.data(line)
    for digest in step.tracebacks:
        if digest in tracebacks:
            terminal.data("")
            terminal.data(tracebacks[digest].removesuffix("\n"))


def _facts(root: TraceNode, step: TraceNode, limit: int | None) -> Iterator[tuple[str, str]]:
    yield from _given(root, step, limit)
    yield from way(step, limit=limit)
    for made in step.made if len(step.made) > 1 or step.failures else ():
        yield from _attempt(made)
    yield from _results(step, limit)
    if not step.failures:  # else the attempts say it
        yield from reasons(step)
    elif step.error is not None and step.error.hint:
        yield "hint", step.error.hint


def _given(root: TraceNode, step: TraceNode, limit: int | None) -> Iterator[tuple[str, str]]:
    """Yield when a step began, its input and what it sent."""
    if step.began is not None and root.began is not None:
        after = max(0.0, step.began - root.began)
        yield "began", f"{formatting.moment(step.began)}, {formatting.seconds(after)} after the run"
    if step.kind == "turn":
        yield from said(step, limit=limit)
    elif step.input is not None and step.kind != "summary":
        yield "input", value_text(step.input, limit)
    yield from sent(step)
    yield from _prompt(step, limit)


def _results(step: TraceNode, limit: int | None) -> Iterator[tuple[str, str]]:
    """Yield what a step repaired, changed, returned and launched."""
    for repair in step.detail.get("repairs", ()):
        yield "repair", value_text(repair, limit)
    for op in step.changed:
        yield "context", change(op, limit)
    if step.kind != "turn" and step.status == "completed":
        yield "output", value_text(step.output, limit)
    if step.frame is not None:
        yield "at", formatting.code_place(step.frame)
    if step.task is not None:
        yield "task", f"{formatting.short_id(step.task.run_id)} {step.task.status}"


def _prompt(step: TraceNode, limit: int | None) -> Iterator[tuple[str, str]]:
    """Yield the instructions of the agent, and the first message, which has the filled-in input."""
    asked = step.agent or (step.transcripts[-1] if step.transcripts else {})
    if instructions := asked.get("instructions"):
        yield "system", value_text(GATE.text(instructions), limit)
    parts = [part for message in asked.get("messages", ())[:1] for part in message["parts"]]
    for part in parts:
        if part.get("part_kind") == "user-prompt" and isinstance(content := part["content"], str):
            yield "prompt", value_text(GATE.text(content), limit)


def _attempt(made: AttemptMade) -> Iterator[tuple[str, str]]:
    facts = [
        f"{made.number}  {made.status}",
        formatting.seconds(made.seconds),
        formatting.usage(made.usage, NOTHING),
        f"{made.error.message} [{made.error.code}]" if made.error else "",
    ]
    yield "attempt", "  ".join(filter(None, facts))
    if made.error is not None and made.error.frame is not None:
        yield "", f"at {formatting.code_place(made.error.frame)}"
