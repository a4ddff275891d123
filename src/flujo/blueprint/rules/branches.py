"""Rules for `map`, `parallel` and `router`: context fields that branches write, and router answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Severity, one_of, rule, suggest
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.traversal import placed
from flujo.blueprint.schemas.algebra import types

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path

# Context fields that branches write ----------------------------------------------------------------------

_TWO = "kind: parallel\nname: both\nbranches:\n"
MERGE_CONFLICT = rule(
    "FLJ235",
    "merge-conflict",
    "Several branches write the same context field",
    finds="A field that two branches of a `parallel` or `router` `save`, or that the steps of a `map` `save` "
    "for every item, without a `merge` strategy that decides which value is kept.",
    why="The order in which branches finish is random, so Flujo does not keep the last value: the run would "
    "fail after all branches have been paid for.",
    example=f"{_TWO}  one: [{{name: a, agent: x, save: {{note: output}}}}]\n"
    "  two: [{name: b, agent: y, save: {note: output}}]",
    instead=f"{_TWO}  one: [{{name: a, agent: x, save: {{notes: {{append: output}}}}}}]\n"
    "  two: [{name: b, agent: y, save: {notes: {append: output}}}]",
)
THROWN_AWAY = rule(
    "FLJ236",
    "write-thrown-away",
    "Context fields written inside a map are discarded",
    finds="A `save:` inside a `map` without `merge:`.",
    why="Each item works on its own copy of the context. Without `merge:` the copies are discarded at the "
    "end.",
    example="kind: map\nname: each\nover: input.docs\n"
    "steps: [{name: read, agent: a, save: {notes: {append: output}}}]",
    instead="kind: map\nname: each\nover: input.docs\nmerge: context_update\n"
    "steps: [{name: read, agent: a, save: {notes: {append: output}}}]",
)
FIELD_MAPPING = rule(
    "FLJ237",
    "field-mapping",
    "A field mapping names an unknown branch or field",
    finds="A key of `field_mapping:` that is not a branch, or a field that the context does not have.",
    why="The field would not be copied from the branch.",
    example=f"field_mapping: {{oen: [note]}}\n{_TWO}  one: [{{name: a, agent: x, save: {{note: output}}}}]",
    instead=f"field_mapping: {{one: [note]}}\n{_TWO}  one: [{{name: a, agent: x, save: {{note: output}}}}]",
)
KEEPS_NOTHING = rule(
    "FLJ240",
    "keeps-no-failure",
    "A map keeps only failed items, and the first one fails it",
    finds="A `map` with `keep: failed` whose `on_error` is `fail`.",
    why="The first failed item fails the step, so its output would always be an empty list.",
    example="kind: map\nname: each\nover: input.docs\nkeep: failed\nsteps: [{name: read, agent: a}]",
    instead="kind: map\nname: each\nover: input.docs\nkeep: failed\non_error: skip\n"
    "steps: [{name: read, agent: a}]",
)
_JUDGED = ("context_update", "error_on_conflict")
"""The strategies that treat a second writer as a conflict."""


@dataclass(frozen=True)
class _Write:
    """Where a branch writes a field, and whether it only appends."""

    path: Path
    appends: bool


def merge_conflict(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report fields that more than one branch writes, unless the strategy decides between them."""
    step = visit.step
    if isinstance(step, doc.MapStep) and step.merge in _JUDGED:
        for field, write in _writes(unit, step.steps, (*visit.path, "steps")).items():
            if not write.appends or step.merge == "error_on_conflict":
                yield MERGE_CONFLICT.at(
                    unit.span(*write.path, key=True),
                    f"every item of map {step.name!r} writes `context.{field}`",
                    hint=_hint(step.merge, field, "write it in a step after the map"),
                )
    elif isinstance(step, doc.BranchesAtOnce) and step.merge in _JUDGED:
        yield from _between_branches(unit, visit.path, step)


def _between_branches(unit: Unit, path: Path, step: doc.BranchesAtOnce) -> Iterator[Diagnostic]:
    seen: dict[str, tuple[str, _Write]] = {}
    for branch, steps, where in step.bodies():
        for field, write in _writes(unit, steps, (*path, *where)).items():
            if branch in step.field_mapping and field not in step.field_mapping[branch]:
                continue
            first, earlier = seen.setdefault(field, (branch, write))
            if first == branch or (write.appends and earlier.appends and step.merge != "error_on_conflict"):
                continue
            chosen = " when both are chosen" if isinstance(step, doc.RouterStep) else ""
            yield MERGE_CONFLICT.at(
                unit.span(*write.path, key=True),
                f"branches {first!r} and {branch!r} both write `context.{field}`{chosen}",
                hint=_hint(
                    step.merge, field, "write it in one branch only, for instance with `field_mapping`"
                ),
                severity=Severity.WARNING if chosen else Severity.ERROR,
                related=((unit.span(*earlier.path, key=True), "the other one"),),
            )


def _hint(merge: str, field: str, elsewhere: str) -> str:
    append = f"append to a list (`{field}: {{append: …}}`), " if merge == "context_update" else ""
    return f"{append}{elsewhere}, or choose which value is kept: `merge: overwrite` or `merge: keep_first`"


def thrown_away(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Warn of writes inside a map without `merge`."""
    step = visit.step
    # An explicit `merge: no_merge` is a decision.
    if isinstance(step, doc.MapStep) and "merge" not in step.model_fields_set:
        for field, write in _writes(unit, step.steps, (*visit.path, "steps")).items():
            yield THROWN_AWAY.at(
                unit.span(*write.path, key=True),
                f"map {step.name!r} writes `context.{field}`, and the value is discarded",
                hint="write `merge: context_update` on the map to keep it, or `merge: no_merge` if only "
                "the item itself reads it",
            )


def keeps_nothing(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Warn of a map that keeps the failed items and fails with the first."""
    step = visit.step
    if isinstance(step, doc.MapStep) and (step.keep, step.on_error) == ("failed", "fail"):
        yield KEEPS_NOTHING.at(
            unit.span(*visit.path, "keep"),
            f"map {step.name!r} fails with its first failed item, so `keep: failed` keeps nothing",
            hint="add `on_error: skip`, or write `keep: none`",
            severity=Severity.WARNING,
        )


def _writes(unit: Unit, steps: Sequence[doc.BaseStep], path: Path) -> Mapping[str, _Write]:
    """Return the fields that a list of steps writes, and where each is written first."""
    found: dict[str, _Write] = {}

    def note(field: str, write: _Write) -> None:
        first = found.setdefault(field, write)
        found[field] = _Write(first.path, first.appends and write.appends)

    for step, here in placed(steps, path):
        for name, keys in step.writes.items():
            note(name, _Write((*here, *keys), isinstance(step.save.get(name), doc.Append)))
        if getattr(step, "merge", "") != "no_merge":
            for _, body, where in step.bodies():
                for name, write in _writes(unit, body, (*here, *where)).items():
                    note(name, write)
        child = unit.imports.get(step.imports or "")
        if child is not None and step.inherits:
            for name, write in _writes(child, child.blueprint.steps, ("steps",)).items():
                note(name, _Write((*here, "context"), write.appends))
    return found


def field_mapping(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report a field mapping that names an unknown branch or field."""
    step = visit.step
    if not isinstance(step, doc.BranchesAtOnce):
        return
    context = visit.scope.context
    for branch, fields in step.field_mapping.items():
        path = (*visit.path, "field_mapping", branch)
        if branch not in step.branches:
            yield FIELD_MAPPING.at(
                unit.span(*path, key=True),
                f"step {step.name!r} has no branch {branch!r}",
                hint=suggest(branch, step.branches, what="branches"),
            )
        known = (context or {}).get("properties") or {}
        for index, name in enumerate(fields):
            if context is not None and name not in known:
                yield FIELD_MAPPING.at(
                    unit.span(*path, index),
                    f"the context has no field {name!r}",
                    hint=suggest(name, known, what="fields") or "declare it in `context_schema`",
                )


# Router answers ------------------------------------------------------------------------------------------

_ROUTE = "agents: {chooser: {model: a:b, output_schema: {enum: [billing, %s]}}}\nsteps:\n"
_ROUTER = (
    "  - {kind: router, name: ask, router: chooser, branches: {billing: [{name: b, agent: x}],\n"
    "     technical: [{name: t, agent: y}]}}"
)
ROUTER_ANSWER = rule(
    "FLJ238",
    "router-answer",
    "A router's agent does not answer with branch names",
    finds="An agent under `router:` with an output schema that is neither text nor a list of texts, or that "
    "allows a value that is not a branch.",
    why="A router must answer with the branches to run. Any other answer is retried once, then the run "
    "fails.",
    example=_ROUTE % "technic" + _ROUTER,
    instead=_ROUTE % "technical" + _ROUTER,
)


def router_answer(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report an agent whose answers cannot be branch names."""
    step = visit.step
    agent = unit.blueprint.agents.get(step.router) if isinstance(step, doc.RouterStep) else None
    if agent is None or agent.output_schema is None or not isinstance(step, doc.RouterStep):
        return
    schema = agent.output_schema
    there = ((unit.span("agents", step.router, "output_schema", key=True), "its output schema"),)
    if types(schema) == {"array"}:
        schema = schema.get("items") or {}
    given = types(schema)
    if given and "string" not in given:
        yield ROUTER_ANSWER.at(
            unit.span(*visit.path, "router"),
            f"agent {step.router!r} answers with {one_of(sorted(given))}, but a router answers with branch "
            "names",
            hint="remove its `output_schema`: Flujo tells a router which branches it can choose",
            related=there,
        )
    for value in schema.get("enum") or ():
        if value not in step.branches:
            yield ROUTER_ANSWER.at(
                unit.span(*visit.path, "router"),
                f"agent {step.router!r} may answer {value!r}, which is not a branch of {step.name!r}",
                hint=suggest(str(value), step.branches, what="branches"),
                related=there,
            )
