"""Draws a pipeline as a tree of text lines: each step with its kind and summary, its branches below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.cli import formatting
from flujo.domain.steps import ImportStep, StateMachineStep, Step
from flujo.services.inspection.step_summary import gist, logic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.cli.terminal import Terminal
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.steps import BaseStep

_WIDTH = 60


def show_outline(terminal: Terminal, pipeline: Pipeline, *, unfold: bool) -> None:
    """Write the tree to stdout; `unfold` goes into imported blueprints."""
    title = f"  {formatting.brief(pipeline.description)}" if pipeline.description else ""
    terminal.data(terminal.styled(pipeline.name, "bold", to=terminal.out) + title)
    lines = list(_body(pipeline, "", unfold=unfold))
    width = max((len(left) for left, _ in lines), default=0)
    for left, right in lines:
        said = terminal.styled(formatting.brief(right, _WIDTH * 2), "dim", to=terminal.out) if right else ""
        terminal.data(f"{left:<{min(width, _WIDTH)}}  {said}".rstrip())


def _body(body: Pipeline, indent: str, *, unfold: bool) -> Iterator[tuple[str, str]]:
    for step in body.steps:
        last = step is body.steps[-1]
        kind = "" if step.kind == "step" else f" [{step.kind}]"
        when = f", when {logic(step.when)}" if step.when is not None else ""
        yield f"{indent}{'└─ ' if last else '├─ '}{step.name}{kind}", gist(step) + when
        inner = indent + ("   " if last else "│  ")
        branches = list(_branches(step, unfold=unfold))
        for label, detail, branch in branches:
            end = label == branches[-1][0]
            if not label:
                yield from _body(branch, inner, unfold=unfold)
                continue
            yield f"{inner}{'└─ ' if end else '├─ '}{label}:", detail
            yield from _body(branch, inner + ("   " if end else "│  "), unfold=unfold)


def _branches(step: BaseStep, *, unfold: bool) -> Iterator[tuple[str, str, Pipeline]]:
    """Yield what is inside a step: a label (none for a single body), what follows it, and its steps."""
    from flujo.domain.pipeline import Pipeline

    if isinstance(step, Step) and step.fallback is not None:
        yield "when it fails", "", Pipeline((step.fallback,))
    elif isinstance(step, StateMachineStep):
        for name, state in step.states.items():
            ways = [
                f"→ {way.to}" + (f" when {logic(way.when)}" if way.when is not None else "")
                for way in state.transitions
            ]
            yield name, "; ".join(ways) or "final", state.body
    elif not isinstance(step, ImportStep) or unfold:
        bodies = step.bodies()
        for name, body in bodies.items():
            yield ("" if set(bodies) <= {"steps", "import", "step"} else name), "", body
