"""What a schema cannot say of `import`: whether what is handed over and what is shared fits the child."""

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
    "An import does not give the child what it takes",
    finds="A key of an import's `with:` that the child's `input_schema` does not have, or one that it needs "
    "and does not get.",
    why="The child would refuse its input when the run comes to it, after other steps have been paid for.",
    example="# answer.yaml has input_schema: {type: object, required: [text], properties: {text: {}}}\n"
    "steps:\n  - {kind: import, name: answer, blueprint: ./answer.yaml, with: {txt: '{{ input }}'}}",
    instead="steps:\n  - {kind: import, name: answer, blueprint: ./answer.yaml, with: {text: '{{ input }}'}}",
)


IMPORT_CONTEXT = rule(
    "FLJ248",
    "import-context",
    "An import inherits a context that is not the child's",
    finds="`context: inherit` on an import whose blueprint declares another context than the importing one.",
    why="The child's steps would read and write fields that are not there, or are of another type.",
    example="# answer.yaml has context_schema: {properties: {draft: {type: string}}}\n"
    "context_schema: {properties: {label: {type: string}}}\n"
    "steps:\n  - {kind: import, name: answer, blueprint: ./answer.yaml, context: inherit}",
    instead="# answer.yaml has context_schema: {properties: {draft: {type: string}}}\n"
    "context_schema: {properties: {draft: {type: string}}}\n"
    "steps:\n  - {kind: import, name: answer, blueprint: ./answer.yaml, context: inherit}",
)


def import_input(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse `with` that does not fit the child's `input_schema`."""
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
    there = (child.span("input_schema", key=True), "what it takes is said here")
    properties = schema.get("properties") or {}
    missing = [name for name in schema.get("required") or () if name not in step.with_]
    for name in step.with_:
        if name not in properties and (properties or schema.get("additionalProperties") is False):
            yield IMPORT_INPUT.at(
                unit.span(*visit.path, "with", name, key=True),
                f"{step.blueprint!r} takes no {name!r}",
                hint=suggest(name, properties, what="it takes"),
                related=(there,),
            )
            missing = [one for one in missing if one != nearest(name, missing)]
    for name in missing:
        yield IMPORT_INPUT.at(
            unit.span(*visit.path, "with", key=True),
            f"{step.blueprint!r} needs {name!r}, and `with` does not give it",
            hint=f"add `{name}: …` to `with`",
            related=(there,),
        )


def _unfit_values(unit: Unit, visit: Visit, step: doc.ImportStep, child: Unit) -> Iterator[Diagnostic]:
    """Refuse values whose type is known and is not the one that the child takes."""
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
                f"this gives {step.blueprint!r} {one_of(sorted(types(given)))}, and it takes "
                f"{one_of(sorted(expected))}",
                hint="give the child what it takes, by `with:`"
                if step.with_ is None
                else "convert it, or change one",
                related=((child.span("input_schema", key=True), "what it takes is said here"),),
            )


def import_context(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse to inherit into a child that declares another context."""
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
                f"{step.blueprint!r} declares another context, so it cannot inherit this one",
                hint=f"write the same `{key}:` in both, or keep them apart: `context: own`, `with`, `save`",
                related=((child.span(key, key=True), "its context is declared here"),),
            )
