"""Draws a pipeline as a tree of text lines: each step with its kind and summary, its branches below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.pipeline import FALLBACK
from flujo.services.inspection import formatting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flujo.cli.terminal import Terminal
    from flujo.domain.pipeline import BaseStep, Flow, Pipeline

_WIDTH = 60


def show_outline(
    terminal: Terminal, pipeline: Pipeline, *, unfold: bool, notes: Callable[[BaseStep], Iterable[str]]
) -> None:
    """Write the tree to stdout; `unfold` expands imported blueprints, `notes` returns lines about a step."""
    title = f"  {formatting.brief(pipeline.description)}" if pipeline.description else ""
    terminal.data(terminal.styled(pipeline.name, "bold", to=terminal.out) + title)
    lines = list(_body(pipeline, "", unfold=unfold, notes=notes))
    if pipeline.on_failure is not None:
        lines += [("when the run fails:", ""), *_body(pipeline.on_failure, "", unfold=unfold, notes=notes)]
    if pipeline.finally_ is not None:
        lines += [("at the end:", ""), *_body(pipeline.finally_, "", unfold=unfold, notes=notes)]
    width = max((len(left) for left, _ in lines), default=0)
    for left, right in lines:
        detail = terminal.styled(formatting.brief(right, _WIDTH * 2), "dim", to=terminal.out) if right else ""
        terminal.data(f"{left:<{min(width, _WIDTH)}}  {detail}".rstrip())


def _body(
    body: Pipeline, indent: str, *, unfold: bool, notes: Callable[[BaseStep], Iterable[str]]
) -> Iterator[tuple[str, str]]:
    for step in body.steps:
        last = step is body.steps[-1]
        kind = "" if step.kind == "step" else f" [{step.kind}]"
        when = f", when {step.when}" if step.when is not None else ""
        summary = f"{step.summary()}{step.config.launch}{when}"
        yield f"{indent}{'└─ ' if last else '├─ '}{step.name}{kind}", summary
        inner = indent + ("   " if last else "│  ")
        branches = list(_branches(step, unfold=unfold))
        yield from ((f"{inner}{'│  ' if branches else '   '}", note) for note in notes(step))
        for label, detail, branch in branches:
            end = label == branches[-1][0]
            if not label:
                yield from _body(branch, inner, unfold=unfold, notes=notes)
                continue
            yield f"{inner}{'└─ ' if end else '├─ '}{label}:", detail
            yield from _body(branch, inner + ("   " if end else "│  "), unfold=unfold, notes=notes)


def _branches(step: BaseStep, *, unfold: bool) -> Iterator[tuple[str, str, Pipeline]]:
    """Yield the bodies of a step: label (empty for a single body), transitions, and pipeline."""
    if step.imported is not None and not unfold:
        return
    flow = step.flow()
    for name, body in step.bodies().items():
        ways = _ways(flow, name) if flow else []
        label = "when it fails" if name == FALLBACK else name if step.names_bodies else ""
        label = f"tool {body.steps[0].name}" if step.is_tool(name) else label
        yield label, "; ".join(ways), body


def _ways(flow: Flow, name: str) -> list[str]:
    """Return where a body leads, in a few words each."""
    ways = [f"→ {to}" + (f" when {when}" if when else "") for to, when in flow.ways[name]] or ["final"]
    return ways + ([f"→ {flow.failures[name]} on error"] if name in flow.failures else [])
