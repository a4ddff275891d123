"""Rules about imports: input and inherited context must fit the child blueprint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.analysis.inference import schema_of
from flujo.blueprint.diagnostics import nearest, one_of, rule, suggest
from flujo.blueprint.language import models as doc
from flujo.blueprint.schemas.algebra import types, widened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path
    from flujo.blueprint.schemas.algebra import Schema

IMPORT_INPUT = rule(
    "FLJ224",
    "import-input",
    "The input of an import does not fit the child",
    finds="A key of an import's `with:` that the child's `input_schema` does not have, or a required one "
    "that is missing.",
    why="The child would reject its input at run time, after other steps have been paid for.",
    example="# answer.yaml has input_schema: {type: object, required: [text], properties: {text: {}}}\n"
    "steps:\n  - {kind: import, name: answer, blueprint: ./answer.yaml, with: {txt: '{{ input }}'}}",
    instead="steps:\n  - {kind: import, name: answer, blueprint: ./answer.yaml, with: {text: '{{ input }}'}}",
)


IMPORT_CONTEXT = rule(
    "FLJ248",
    "import-context",
    "An import inherits a context that the child does not declare",
    finds="`context: inherit` on an import whose blueprint declares a different context.",
    why="The child's steps would read and write fields that do not exist or have another type.",
    example="# answer.yaml has context_schema: {properties: {draft: {type: string}}}\n"
    "context_schema: {properties: {label: {type: string}}}\n"
    "steps:\n  - {kind: import, name: answer, blueprint: ./answer.yaml, context: inherit}",
    instead="# answer.yaml has context_schema: {properties: {draft: {type: string}}}\n"
    "context_schema: {properties: {draft: {type: string}}}\n"
    "steps:\n  - {kind: import, name: answer, blueprint: ./answer.yaml, context: inherit}",
)


def import_input(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report a `with` that does not fit the child's `input_schema`."""
    step = visit.step
    child = unit.imports.get(step.blueprint) if isinstance(step, doc.ImportStep) else None
    if not isinstance(step, doc.ImportStep) or child is None:
        return
    schema = child.blueprint.input_schema
    if schema is None:
        return
    yield from _unfit_values(unit, visit, step, child)
    if step.with_ is None:
        return
    there = (child.span("input_schema", key=True), "its input schema")
    properties = schema.get("properties") or {}
    missing = [name for name in schema.get("required") or () if name not in step.with_]
    for name in step.with_:
        if name not in properties and (properties or schema.get("additionalProperties") is False):
            yield IMPORT_INPUT.at(
                unit.span(*visit.path, "with", name, key=True),
                f"{step.blueprint!r} has no input {name!r}",
                hint=suggest(name, properties, what="inputs"),
                related=(there,),
            )
            missing = [one for one in missing if one != nearest(name, missing)]
    for name in missing:
        yield IMPORT_INPUT.at(
            unit.span(*visit.path, "with", key=True),
            f"{step.blueprint!r} needs {name!r}, but `with` does not have it",
            hint=f"add `{name}: …` to `with`",
            related=(there,),
        )


def _unfit_values(unit: Unit, visit: Visit, step: doc.ImportStep, child: Unit) -> Iterator[Diagnostic]:
    """Report values of a known type that the child does not accept."""
    taken = child.blueprint.input_schema or {}
    pairs: list[tuple[Path, Schema, Schema]] = []
    if step.with_ is None:
        pairs.append((("name",), visit.scope.previous, taken))
    for name, value in (step.with_ or {}).items():
        wanted = (taken.get("properties") or {}).get(name)
        pairs.append((("with", name), schema_of(value, visit.scope.tree()), wanted))
    for where, given, wanted in pairs:
        expected = types(wanted)
        if types(given) and expected and not types(given) & widened(expected):
            yield IMPORT_INPUT.at(
                unit.span(*visit.path, *where),
                f"this passes {one_of(sorted(types(given)))} to {step.blueprint!r}, which expects "
                f"{one_of(sorted(expected))}",
                hint="pass the child's input with `with:`"
                if step.with_ is None
                else "convert the value, or change one of the two types",
                related=((child.span("input_schema", key=True), "its input schema"),),
            )


def import_context(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report an inherited context that differs from the one that the child declares."""
    step = visit.step
    child = unit.imports.get(step.blueprint) if isinstance(step, doc.ImportStep) else None
    if not isinstance(step, doc.ImportStep) or child is None or step.context != "inherit":
        return
    mine, theirs = unit.blueprint, child.blueprint
    for key in ("context", "context_schema"):
        said = getattr(theirs, key)
        if said is not None and said != getattr(mine, key):
            yield IMPORT_CONTEXT.at(
                unit.span(*visit.path, "context"),
                f"{step.blueprint!r} declares a different context, so it cannot inherit this one",
                hint=f"write the same `{key}:` in both, or separate them: `context: own`, `with`, `save`",
                related=((child.span(key, key=True), "its context is declared here"),),
            )
