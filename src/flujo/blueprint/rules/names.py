"""Rules about names: each has one meaning where it is seen, and expressions can refer to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import rule
from flujo.blueprint.expressions.evaluators import RESERVED
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.traversal import UNNAMED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path

DUPLICATE_NAME = rule(
    "FLJ210",
    "duplicate-step-name",
    "Two steps of one list have the same name",
    finds="A step's name that an earlier step of the same list has already.",
    why="`steps.NAME` would have two meanings, and the journal one place for two results.",
    example="steps:\n  - {name: sort, call: skills.a:one}\n  - {name: sort, call: skills.a:two}",
    instead="steps:\n  - {name: sort, call: skills.a:one}\n  - {name: check, call: skills.a:two}",
)
SHADOWED_NAME = rule(
    "FLJ211",
    "shadowed-step-name",
    "A step hides one of a list around it",
    finds="A step inside a branch or a loop with the name of a step that came before it in a list around it.",
    why="`steps.NAME` inside would silently mean another step than the same words outside.",
    example="steps:\n  - {name: sort, call: s:a}\n  - {kind: conditional, name: c, if: 'true',\n"
    "     then: [{name: sort, call: s:b}]}",
    instead="steps:\n  - {name: sort, call: s:a}\n  - {kind: conditional, name: c, if: 'true',\n"
    "     then: [{name: again, call: s:b}]}",
)


def repeated_name(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse a name that a step before it in this list, or in one around it, has."""
    if isinstance(visit.step, doc.Fallback) or visit.step.name == UNNAMED:
        return  # it is in no list, or it has another name that cannot be read
    name = visit.step.name
    earlier = visit.scope.places.get(name)
    found = DUPLICATE_NAME
    where = "in this list"
    if earlier is None or earlier[:-1] != visit.path[:-1]:
        earlier = enclosing(unit, visit).get(name, earlier) or _of_a_state(visit)
        found, where = SHADOWED_NAME, "in a list around it"
    if earlier is not None:
        yield found.at(
            unit.span(*visit.path, "name"),
            f"the name {name!r} is taken by another step {where}",
            hint="give one of them another name",
            related=((unit.span(*earlier, "name"), "the other one"),),
        )


def _of_a_state(visit: Visit) -> Path | None:
    """Return the step of a state around this one that has its name; two states may each have one."""
    other = visit.scope.perhaps.get(visit.step.name)
    # …, "states", STATE, "steps", INDEX: up to there, both are in the same machine.
    return None if other is None or other[:-4] == visit.path[:-4] else other


def enclosing(unit: Unit, visit: Visit) -> dict[str, Path]:
    """Return the names of the composites around a step, with their places."""
    around = {}
    for length in range(2, len(visit.path)):
        composite = unit.visit_at.get(visit.path[:length])
        if composite is not None:
            around[composite.step.name] = visit.path[:length]
    return around


RESERVED_NAME = rule(
    "FLJ212",
    "reserved-name",
    "A name that expressions cannot say",
    finds="A step, item, loop variable or context field whose name is a reserved word of CEL, or one that no "
    "expression could say for another reason.",
    why="`steps.in.output` does not parse, because `in` is an operator.",
    example="steps:\n  - {name: in, call: skills.io:read}",
    instead="steps:\n  - {name: read, call: skills.io:read}",
)


def reserved_name(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse names of steps, items and loop variables that no expression can say."""
    if visit.step.name in RESERVED:
        yield _reserved(unit, (*visit.path, "name"), visit.step.name)
    if isinstance(visit.step, doc.MapStep) and visit.step.as_ is not None:
        yield from _item_name(unit, visit, visit.step.as_)
    for name in visit.step.carry if isinstance(visit.step, doc.LoopStep) else ():
        path = (*visit.path, "carry", name)
        if name in RESERVED:
            yield _reserved(unit, path, name, key=True)
        elif name == "index":
            yield RESERVED_NAME.at(
                unit.span(*path, key=True),
                "`loop.index` counts the iterations already",
                hint="give the variable another name",
            )


def _item_name(unit: Unit, visit: Visit, name: str) -> Iterator[Diagnostic]:
    path = (*visit.path, "as")
    if name in RESERVED:
        yield _reserved(unit, path, name)
    elif name in (visit.scope.tree(item=None, index=None, output=None, loop=None).get("properties") or ()):
        yield RESERVED_NAME.at(
            unit.span(*path),
            f"{name!r} is the name of something else here",
            hint="call the item by another name; `item` is always there",
        )


def reserved_context_field(unit: Unit) -> Iterator[Diagnostic]:
    """Refuse names of context fields that no expression can say."""
    schema = unit.blueprint.context_schema or {}
    for name in schema.get("properties") or ():
        path = ("context_schema", "properties", name)
        if name in RESERVED:
            yield _reserved(unit, path, name, key=True)
        elif name.startswith("__") or not name.isidentifier() or not name.isascii():
            yield RESERVED_NAME.at(
                unit.span(*path, key=True),
                f"{name!r} cannot be the name of a context field",
                hint="write ASCII letters, digits and `_`, and not two leading underscores",
            )


def _reserved(unit: Unit, path: Path, name: str, *, key: bool = False) -> Diagnostic:
    return RESERVED_NAME.at(
        unit.span(*path, key=key),
        f"{name!r} is a reserved word of CEL, so no expression could say it",
        hint=f"write `{name}_`, or a word that says more",
    )
