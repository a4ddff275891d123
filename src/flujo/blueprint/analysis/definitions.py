"""Finds the definition of a name in an expression: a schema, or the step that outputs it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flujo.blueprint.language import models as doc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.blueprint.analysis.expression_sites import ExpressionSite
    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Span
    from flujo.blueprint.language.traversal import Path

    Related = tuple[tuple[Span, str], ...]

_CHAIN = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\Z")


def related(unit: Unit, place: ExpressionSite, end: int) -> Related:
    """Return the definition of the name chain that ends at `end` in an expression; `()` if unknown."""
    chain = _CHAIN.search(place.source, 0, end)
    match chain[0].split(".") if chain else []:
        case ["input", _, *_] if unit.blueprint.input_schema is not None:
            return ((unit.span("input_schema", key=True), "the input is declared here"),)
        case ["context", _, *_] if unit.blueprint.context_schema is not None:
            return ((unit.span("context_schema", key=True), "the context is declared here"),)
        case ["steps", name, *rest]:
            visits = unit.visits_named.get(name, ())
            return _of_step(unit, visits[0], rest) if len(visits) == 1 else ()
        case _:
            return ()


def _of_step(unit: Unit, visit: Visit, rest: Sequence[str]) -> Related:
    if len(rest) < 2:
        return ((unit.span(*visit.path, "name"), "the step is here"),)
    path = _declared(unit, visit)
    return ((unit.span(*path, key=True), "its output is declared here"),) if path is not None else ()


def _declared(unit: Unit, visit: Visit) -> Path | None:
    match visit.step:
        case doc.Step(output_schema=None, agent=str(name)):
            agent = unit.blueprint.agents.get(name)
            return ("agents", name, "output_schema") if agent and agent.output_schema is not None else None
        case doc.Step(output_schema=None):
            return None
        case doc.Step():
            return (*visit.path, "output_schema")
        case step if getattr(step, "answer_schema", None) is not None:
            return (*visit.path, "answer_schema")
        case step if getattr(step, "event_schema", None) is not None:
            return (*visit.path, "event_schema")
        case step if getattr(step, "output", None) is not None:
            return (*visit.path, "output")
        case _:
            return None
