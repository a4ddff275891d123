"""What each name means at each place of a blueprint: lexical scopes, as JSON Schemas of what is known.

`walk` goes through a checked document in the order of a run and gives one `Visit` a step, with the names that
the step sees and the schema of what it gives. None is a schema that nobody has told: everything is possible.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flujo.blueprint import document as doc
from flujo.blueprint.expressions import check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Schema = Any
"""A JSON Schema, or None when nothing is known."""

Path = tuple[str | int, ...]
"""Keys and indexes from the root of a document."""

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}


def closed(properties: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object that has exactly these properties."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


RUN = closed({"id": STRING, "started_at": STRING})


@dataclass(frozen=True)
class Scope:
    """The names that can be said at one place."""

    input: Schema = None
    context: Schema = None
    previous: Schema = None
    steps: Mapping[str, Schema] = field(default_factory=dict)
    """Per step name, the schema of what can be said after `steps.NAME.`."""
    loop: Mapping[str, Schema] | None = None
    places: Mapping[str, Path] = field(default_factory=dict)
    """Where each of `steps` stands."""

    def tree(self, **more: Schema) -> Schema:
        """Return the scope as one schema, with `more` names beside the usual ones."""
        names = {
            "input": self.input,
            "context": self.context,
            "previous": self.previous,
            "steps": closed(self.steps),
            "run": RUN,
        }
        if self.loop is not None:
            names["loop"] = closed(self.loop)
        return closed(names | more)

    def after(self, visit: Visit) -> Scope:
        """Return the scope of the step that follows."""
        said = {"output": visit.output}
        if isinstance(visit.step, doc.LoopStep):
            said["exhausted"] = BOOLEAN
        return replace(
            self,
            previous=visit.output,
            steps={**self.steps, visit.step.name: closed(said)},
            places={**self.places, visit.step.name: visit.path},
        )


@dataclass(frozen=True)
class Body:
    """A list of steps inside a composite: where it stands, and the scopes at its two ends."""

    path: Path
    end: Scope


@dataclass(frozen=True)
class Visit:
    """A step at its place: what it sees, what is inside it, and the schema of what it gives."""

    step: doc.BaseStep
    path: Path
    scope: Scope
    output: Schema
    own: Schema
    """What the step itself gives; `output` is this or what is passed on when `when` does not hold."""
    bodies: Mapping[str, Body] = field(default_factory=dict)

    def end(self) -> Scope:
        """Return the scope in which a composite's `output` is filled in."""
        if isinstance(self.step, doc.LoopStep):
            return self.bodies["steps"].end
        return replace(self.scope, previous=union(body.end.previous for body in self.bodies.values()))


@dataclass
class Walk:
    """A blueprint, walked once."""

    blueprint: doc.Blueprint
    imported: Callable[[doc.ImportStep], Schema]
    """Gives the schema of an imported blueprint's output."""
    visits: list[Visit] = field(default_factory=list)

    def run(self) -> Scope:
        """Visit every step; return the scope at the end, in which the blueprint's `output` is filled in."""
        schema = self.blueprint.input_schema
        start = Scope(input=schema, previous=schema, context=context_schema(self.blueprint))
        return self._body(self.blueprint.steps, ("steps",), start)

    def _body(self, steps: Sequence[doc.BaseStep], path: Path, scope: Scope) -> Scope:
        for index, step in enumerate(steps):
            visit = self._step(step, (*path, index), scope)
            self.visits.append(visit)
            scope = scope.after(visit)
        return scope

    def _step(self, step: doc.BaseStep, path: Path, scope: Scope) -> Visit:
        bodies = {
            name: Body(where, self._body(steps, where, inner))
            for name, steps, where, inner in self._inside(step, path, scope)
        }
        visit = Visit(step, path, scope, None, None, bodies)
        own = self._gives(visit)
        return replace(visit, own=own, output=own if step.when is None else union((own, scope.previous)))

    def _inside(
        self, step: doc.BaseStep, path: Path, scope: Scope
    ) -> Iterator[tuple[str, Sequence[doc.BaseStep], Path, Scope]]:
        match step:
            case doc.ConditionalStep():
                for name, steps, where in ways(step):
                    yield name, steps, (*path, *where), scope
            case doc.LoopStep():
                # A further iteration begins with the last one's output, whose schema is not known yet.
                inner = replace(scope, previous=None, loop=self._carried(step, scope))
                yield "steps", step.steps, (*path, "steps"), inner
            case _:
                pass

    def _carried(self, step: doc.LoopStep, scope: Scope) -> Mapping[str, Schema]:
        kinds = {name: kind_of(schema_of(carry.initial, scope.tree())) for name, carry in step.carry.items()}
        return {"index": INTEGER, **kinds}

    def _gives(self, visit: Visit) -> Schema:
        match visit.step:
            case doc.Step() as step:
                return self._answer(step)
            case doc.ConditionalStep() | doc.LoopStep() as step:
                end = visit.end()
                given = end.previous if step.output is None else schema_of(step.output, end.tree())
                may_pass = (
                    isinstance(step, doc.ConditionalStep) and step.if_ is not None and step.else_ is None
                )
                return union((given, visit.scope.previous)) if may_pass else given
            case doc.HitlStep() as step:
                return step.answer_schema
            case doc.ImportStep(on_failure="fail") as step:
                return self.imported(step)
            case _:
                return None

    def _answer(self, step: doc.Step) -> Schema:
        if step.output_schema is not None:
            return step.output_schema
        agent = self.blueprint.agents.get(step.agent or "")
        if agent is None or agent.output_type is not None:
            return None
        return agent.output_schema if agent.output_schema is not None else STRING


def ways(step: doc.ConditionalStep) -> Iterator[tuple[str, Sequence[doc.BaseStep], Path]]:
    """Yield the branches of a conditional: name, steps, and the keys that lead there."""
    if step.then is not None:
        yield "then", step.then, ("then",)
    if step.else_ is not None:
        yield "else", step.else_, ("else",)
    for name, steps in (step.branches or {}).items():
        yield name, steps, ("branches", name)
    if step.default is not None:
        yield "default", step.default, ("default",)


def texts(data: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield every text in JSON data with its path."""
    match data:
        case str():
            yield path, data
        case dict():
            for key, value in data.items():
                yield from texts(value, (*path, key))
        case list():
            for index, value in enumerate(data):
                yield from texts(value, (*path, index))
        case _:
            pass


# Schemas of what is known --------------------------------------------------------------------------------


def context_schema(blueprint: doc.Blueprint) -> Schema:
    """Return the schema of the context: closed, and what has a default is there from the start."""
    if blueprint.context is not None:
        return None
    schema = blueprint.context_schema or {}
    properties = schema.get("properties") or {}
    given = [name for name, field_ in properties.items() if isinstance(field_, dict) and "default" in field_]
    required = dict.fromkeys([*(schema.get("required") or []), *given])
    return {**schema, "type": "object", "required": list(required), "additionalProperties": False}


def schema_of(value: Any, tree: Schema) -> Schema:
    """Return the schema of what a key that holds a value becomes, in the scope `tree`."""
    match value:
        case str():
            return check_text(value, tree).schema
        case bool():
            return BOOLEAN
        case int():
            return INTEGER
        case float():
            return {"type": "number"}
        case dict():
            return closed({key: schema_of(item, tree) for key, item in value.items()})
        case list():
            return {"type": "array", "items": union(schema_of(item, tree) for item in value)}
        case _:
            return None


def union(schemas: Iterator[Schema] | Sequence[Schema]) -> Schema:
    """Return what is known of a value that fits one of `schemas`: the one that all are, or nothing."""
    first, *others = list(schemas) or [None]
    return first if all(other == first for other in others) else None


def types(schema: Schema) -> frozenset[str]:
    """Return the JSON types that a value of `schema` may have; empty when nothing is known."""
    if not isinstance(schema, dict):
        return frozenset()
    said = schema.get("type")
    if isinstance(said, str):
        return frozenset({said})
    if isinstance(said, list):
        return frozenset(said)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return frozenset(names.get(type(value), "null") for value in values or ())


def kind_of(schema: Schema) -> Schema:
    """Return the one JSON type of `schema` and nothing more: what stays of a value that changes."""
    kinds = frozenset("number" if kind == "integer" else kind for kind in types(schema))
    return {"type": next(iter(kinds))} if len(kinds) == 1 and kinds != {"null"} else None
