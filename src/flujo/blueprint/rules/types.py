"""Rules about types: saved values, loop variables, branches of a switch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.analysis.inference import schema_of
from flujo.blueprint.diagnostics import Severity, one_of, rule, suggest
from flujo.blueprint.expressions.evaluators import check_expression
from flujo.blueprint.language import models as doc
from flujo.blueprint.schemas.algebra import Schema, kind_of, types, widened
from flujo.blueprint.schemas.shapes import shape, values
from flujo.domain import canonical
from flujo.domain.values import looks_like_target
from flujo.domain.wording import json_short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path

CONTEXT_FIELD = rule(
    "FLJ214",
    "unknown-context-field",
    "A step saves to an unknown context field",
    finds="A key of `save:` or `set:` that is not a property of `context_schema`, or one without a context.",
    why="The context is typed: a value in a misspelt field would never be read.",
    example="context_schema: {properties: {label: {type: string}}}\n"
    "steps:\n  - {name: sort, agent: a, save: {lable: output}}",
    instead="context_schema: {properties: {label: {type: string}}}\n"
    "steps:\n  - {name: sort, agent: a, save: {label: output}}",
)
CONTEXT_TYPE = rule(
    "FLJ215",
    "context-type",
    "A step saves a value of the wrong type",
    finds="An expression of `save:` or a value of `set:` whose type differs from the field's, or may differ "
    "(a warning).",
    why="The run would fail after the step has been paid for.",
    example="context_schema: {properties: {count: {type: integer}}}\n"
    "steps:\n  - {name: sort, agent: a, save: {count: output}}",
    instead="context_schema: {properties: {count: {type: integer}}}\n"
    "steps:\n  - {name: sort, agent: a, save: {count: size(output)}}",
)


def save_targets(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report unknown context fields, and values that do not fit their field."""
    schema = visit.scope.context
    if schema is None:
        return
    fields = schema.get("properties") or {}
    for name, keys in visit.step.writes.items():
        path = (*visit.path, *keys)
        if name not in fields:
            yield CONTEXT_FIELD.at(
                unit.span(*path, key=True),
                f"the context has no field {name!r}",
                hint=suggest(name, fields, what="fields")
                or f"declare it: `context_schema: {{type: object, properties: {{{name}: …}}}}`",
            )
        else:
            yield from _saved_type(unit, visit, name, path, fields[name])


def _saved_type(unit: Unit, visit: Visit, name: str, path: Path, field: Schema) -> Iterator[Diagnostic]:
    wanted = types(field)
    save = visit.step.save.get(name)
    if isinstance(save, doc.Append):
        if wanted and "array" not in wanted:
            yield CONTEXT_TYPE.at(
                unit.span(*path),
                f"`append` needs a list, but the context's {path[-1]!r} is {one_of(sorted(wanted))}",
                hint="save the value without `append`, or make the field an array",
            )
            return
        wanted = types(field.get("items")) if isinstance(field, dict) else frozenset()
    given, source, verb = _given_types(unit, visit, name, path)
    others = given - (wanted | {"integer"} if "number" in wanted else wanted)
    if wanted and others:
        fits = bool(given & widened(wanted))
        yield CONTEXT_TYPE.at(
            unit.span(*path),
            f"{source} {_MAY_BE[verb] if fits else verb} {one_of(sorted(others))}, but the context's "
            f"{path[-1]!r} is {one_of(sorted(wanted))}",
            hint="convert it in the expression, or change the field's type",
            severity=Severity.WARNING if fits else Severity.ERROR,
        )


def _given_types(unit: Unit, visit: Visit, name: str, path: Path) -> tuple[frozenset[str], str, str]:
    """Return the types of the value at `path`, how it is written, and a verb; no types for a callable."""
    if isinstance(visit.step, doc.SetStep) and path[-2] == "set":
        value = visit.step.set_[name]
        return _alternatives(schema_of(value, visit.scope.tree())), json_short(value), "is"
    for place in unit.places[visit.path]:
        if place.path[: len(path)] == path and not place.names_callable:
            return _alternatives(place.checked.schema), repr(place.source), "returns"
    return frozenset(), "", "returns"


_MAY_BE = {"is": "may be", "returns": "may return"}


def _alternatives(schema: Schema) -> frozenset[str]:
    return frozenset(one.kind for one in shape(schema).alternatives() if one.kind is not None)


def _logic_types(source: str, tree: Schema) -> frozenset[str]:
    return frozenset() if looks_like_target(source) else types(check_expression(source, tree).schema)


CARRY_TYPE = rule(
    "FLJ217",
    "carry-type",
    "A loop variable changes its type",
    finds="A `carry` whose `initial` has one type and whose `next` has another.",
    why="The steps of the loop would see text in the first iteration and, say, a list in the second.",
    example="carry: {notes: {initial: \"\", next: 'loop.notes + [steps.check.output]'}}",
    instead="carry: {notes: {initial: [], next: 'loop.notes + [steps.check.output]'}}",
)


def carry_types(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report loop variables that change their type."""
    carried: Mapping[str, doc.Carry] = getattr(visit.step, "carry", {})
    end = visit.end.tree() if carried else None
    for name, carry in carried.items():
        first = types(kind_of(schema_of(carry.initial, visit.scope.tree())))
        later = _logic_types(carry.next, end)
        if first and later and not later & widened(first):
            yield CARRY_TYPE.at(
                unit.span(*visit.path, "carry", name, "next"),
                f"`loop.{name}` starts as {one_of(sorted(first)[-1:])} and becomes {one_of(sorted(later))}",
                hint="give `initial` a value of the same type, or `null` if there is none yet",
                related=((unit.span(*visit.path, "carry", name, "initial"), "its initial value"),),
            )


IMPOSSIBLE_BRANCH = rule(
    "FLJ218",
    "switch-branches",
    "The branches of a switch do not match its values",
    finds="A branch for a value that the schema of `switch` does not list, or a listed value without a "
    "branch and without `default`.",
    why="The first never runs; the second fails the run.",
    example="# label is one of refund, bug\n"
    "switch: steps.sort.output.label\nbranches: {refund: [], bugs: []}",
    instead="# label is one of refund, bug\nswitch: steps.sort.output.label\nbranches: {refund: [], bug: []}",
)


def switch_branches(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Compare the branches of a switch with the values that its schema lists."""
    step = visit.step
    if not isinstance(step, doc.ConditionalStep) or step.switch is None or looks_like_target(step.switch):
        return
    schema = check_expression(step.switch, visit.scope.tree()).schema
    listed = values(shape(schema)) or ((True, False) if types(schema) == {"boolean"} else ())
    if not listed:
        return
    # The branch of a value that is not text is named as JSON writes the value.
    names = [value if isinstance(value, str) else canonical.encode(value).decode() for value in listed]
    for name in step.branches or {}:
        if name not in names:
            yield IMPOSSIBLE_BRANCH.at(
                unit.span(*visit.path, "branches", name, key=True),
                f"`{step.switch}` is never {name!r}",
                hint=suggest(name, names, what="possible values"),
            )
    missing = [name for name in names if name not in (step.branches or {})]
    if missing and step.default is None:
        yield IMPOSSIBLE_BRANCH.at(
            unit.span(*visit.path, "switch"),
            f"`{step.switch}` may be {one_of(missing)}, which has no branch",
            hint="add the branch, or a `default:`",
            severity=Severity.WARNING,
        )
