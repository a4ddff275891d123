"""Computes the lexical scope at each place of a blueprint, as JSON Schemas.

`walk` visits the steps of a checked document in the order of a run and returns one `Visit` per step, with the
names in its scope and the schema of its output. The schema None means unknown: any value is possible.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flujo.blueprint.analysis.early_ends import EarlyEnds, perhaps_skipped
from flujo.blueprint.analysis.growing import Growing
from flujo.blueprint.analysis.inference import schema_of
from flujo.blueprint.analysis.scope import Scope
from flujo.blueprint.analysis.state_scopes import Shared
from flujo.blueprint.expressions.evaluators import check_expression
from flujo.blueprint.expressions.narrowing import by_flag
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.roles import Sees, keys
from flujo.blueprint.language.traversal import UNNAMED, Path, placed
from flujo.blueprint.language.values import MERGES
from flujo.blueprint.schemas.algebra import (
    BOOLEAN,
    INTEGER,
    STRING,
    Schema,
    closed,
    kind_of,
    types,
    union,
)
from flujo.blueprint.schemas.shapes import element, shape
from flujo.domain.state_graph import Graph
from flujo.domain.steps.state_machine import after_errors
from flujo.domain.values import looks_like_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Body:
    """A list of steps inside a composite: its place, and the scopes at its start and end."""

    path: Path
    end: Scope


@dataclass(frozen=True)
class Visit:
    """A step at its place: its scope, its bodies, and the schema of its output."""

    step: doc.BaseStep
    path: Path
    before: Scope
    """The names in scope, whether `when` is true or not."""
    scope: Scope
    """The names in scope where `when` is true."""
    end: Scope
    """The scope of a composite's `output`."""
    output: Schema
    own: Schema
    """The step's own output; `output` also covers the value passed on if `when` is false."""
    bodies: Mapping[str, Body] = field(default_factory=dict)
    is_known: bool = True
    """Whether the whole step is valid, so that rules can check it."""

    def tree(self, sees: Sees, body: str) -> Schema:
        """Return the scope of an expression of this step, as one schema.

        Args:
            sees: which scope the expression has.
            body: the body that the expression belongs to.
        """
        match sees:
            case Sees.BEFORE:
                return self.scope.tree()
            case Sees.WHEN:
                return self.before.tree()
            case Sees.AFTER:
                return self.end.tree()
            case Sees.OUTPUT:
                return self.scope.tree(output=self.own)
            case Sees.BODY:
                return self.bodies[body].end.tree()
            case Sees.NODE:
                node = {name: self.own["properties"][name] for name in ("candidate", "path", "depth")}
                return self.scope.tree(previous=closed({**node, "input": None}))
            case Sees.CANDIDATE:
                judged = ("candidate", "score", "depth")
                return self.scope.tree(**{name: self.own["properties"][name] for name in judged})


@dataclass
class Walk:
    """One walk over a blueprint."""

    blueprint: doc.Blueprint
    imported: Callable[[str], Schema]
    """Returns the schema of an imported blueprint's output."""
    typed: Callable[[str], Schema] = lambda _target: None
    """Returns the schema of a class, or of a function's return value, by its `module:name`."""
    knows: Callable[[doc.BaseStep, Path], bool] = lambda _step, _path: True
    """Returns whether the whole step is valid."""
    is_open: bool = False
    """Whether a part of the blueprint itself could not be read."""
    visits: list[Visit] = field(default_factory=list)
    ends: list[Schema] = field(default_factory=list)
    """The outputs with which steps end the blueprint early."""

    def run(self) -> Scope:
        """Visit every step; return the scope at the end, which the blueprint's `output` has."""
        schema = self.blueprint.input_schema
        has_context = not self.is_open or self.blueprint.context_schema is not None
        context = context_schema(self.blueprint, self.typed) if has_context else None
        start = Scope(input=schema, previous=schema, context=context)
        failed = replace(start, previous=_FAILURE, names={"failure": _FAILURE})
        self._body(self.blueprint.on_failure, ("on_failure",), failed)
        over = replace(start, previous=_ENDED, names={"ended": _ENDED})
        self._body(self.blueprint.finally_, ("finally",), over)
        return self._body(self.blueprint.steps, ("steps",), start)

    def _body(self, steps: Sequence[doc.BaseStep], path: Path, scope: Scope) -> Scope:
        early = EarlyEnds()
        for step, place in placed(steps, path):
            visit = self._step(step, place, scope)
            self.visits.append(visit)
            if isinstance(step, doc.EndStep) and step.fail is None:
                if step.of == "blueprint" or path == ("steps",):
                    self.ends.append(visit.own)
                else:
                    early.add(replace(scope, previous=visit.own))
            scope = after(scope, visit)
            early.follow(step.name)
        return early.joined(scope)

    def _step(self, step: doc.BaseStep, path: Path, before: Scope) -> Visit:
        is_known = self.knows(step, path)
        scope = before.where(step.when) if is_known else before
        starts = self._starts(step, path, scope)
        bodies = {}
        for name, steps, where in step.bodies():
            place = (*path, *where)
            bodies[name] = Body(place, self._body(steps, place, starts(name)))
        end = _end(step, path, scope if is_known else replace(scope, is_open=True), bodies)
        own = self._gives(step, scope, end) if is_known else None
        passed = before.previous if isinstance(step, doc.EndStep) else union((own, before.previous))
        output = own if step.when is None else passed
        return Visit(step, path, before, scope, end, output, own, bodies, is_known)

    def _starts(self, step: doc.BaseStep, path: Path, scope: Scope) -> Callable[[str], Scope]:
        """Return a function that computes the scope at the start of each body of a step."""
        is_known = self.knows(step, path)
        inner = scope if is_known else replace(scope, is_open=True)
        match step:
            case doc.LoopStep():
                # Only the declared output of the previous iteration is known: the body is not visited yet.
                last = self._declared(step.steps[-1], (*path, "steps", len(step.steps) - 1))
                loop = self._loop(step, path, scope) if is_known else None
                inner = replace(
                    inner, previous=union((scope.previous, last)), names={**scope.names, "loop": loop}
                )
            case doc.MapStep():
                item = element(shape(self._over(step, scope))).standalone()
                names = {"item": item, "index": INTEGER} | ({step.as_: item} if step.as_ else {})
                inner = replace(inner, previous=item, names={**scope.names, **names})
            case doc.StateMachineStep():
                if is_known and UNNAMED not in _names(step):
                    return self._states(step, path, scope)
                inner = _unread(step, inner)
            case doc.ConditionalStep(if_=str(condition)) if is_known:
                return lambda name: inner.where(condition, holds=name == "then")
            case _:
                pass
        return lambda _name: inner

    def _loop(self, step: doc.LoopStep, path: Path, scope: Scope) -> Schema:
        """Return the schema of `loop`: each variable has the type of its initial value.

        A whole number stays one if its `next` is one, by the outputs that the body declares. Otherwise it may
        become any number.
        """
        places = [(one, (*path, "steps", index)) for index, one in enumerate(step.steps)]
        outputs = {one.name: closed({"output": self._declared(one, place)}) for one, place in places}
        last = self._declared(*places[-1])
        tree = scope.tree()
        first = {name: schema_of(carry.initial, tree) for name, carry in step.carry.items()}
        whole = {name for name, schema in first.items() if types(schema) == {"integer"}}
        while True:
            kinds = {name: INTEGER if name in whole else kind_of(one) for name, one in first.items()}
            loop = closed({"index": INTEGER, **kinds})
            steps = Growing(outputs, scope.steps)
            end = replace(scope, previous=last, steps=steps, names={**scope.names, "loop": loop})
            stay = {name for name in whole if types(_next(step.carry[name], end)) == {"integer"}}
            if stay == whole:
                return loop
            whole = stay

    def _over(self, step: doc.MapStep, scope: Scope) -> Schema:
        if looks_like_target(step.over):
            return self.typed(step.over.strip())
        return check_expression(step.over, scope.tree()).schema

    def _states(self, step: doc.StateMachineStep, path: Path, scope: Scope) -> Callable[[str], Scope]:
        """Return a function that computes the scope at the start of each state, with the steps of others.

        Transitions can form cycles, so only the declared outputs of other states are known.
        """
        graph = _graph(step)
        last = {
            name: self._declared(state.steps[-1], (*path, "states", name, "steps", len(state.steps) - 1))
            for name, state in step.states.items()
            if state.steps
        }
        came_from: dict[str, list[Schema]] = {step.initial: [scope.previous]}
        failures = _failures(step)
        for name in graph.reached:
            for target in graph.ways_out(name):
                came_from.setdefault(target, []).append(last.get(name))
        without_failure = frozenset(came_from)
        for target in failures.values():  # it gets what the failed state got
            came_from.setdefault(target, []).append(None)
        shared = Shared(step.states, path, scope, self._said_of_state)

        def starts(name: str) -> Scope:
            start = replace(shared.where(graph.before(name)), previous=union(came_from.get(name) or [None]))
            if not failures:
                return start
            error = _NO_OR_ERROR if name in without_failure else _ERROR
            return replace(start, names={**start.names, "error": error})

        return starts

    def _gives(self, step: doc.BaseStep, scope: Scope, end: Scope) -> Schema:
        if step.is_background:
            return LAUNCHED
        given = self._given_inside(step, scope, end)
        match getattr(step, "on_error", None):
            case "skip" if step.is_replaced:
                return union((given, scope.previous))
            case doc.OutputInstead(output=other):
                return union((given, schema_of(other, scope.tree())))
            case _:
                return given

    def _given_inside(self, step: doc.BaseStep, scope: Scope, end: Scope) -> Schema:
        """Return the schema of the output of a step that does not fail."""
        match step:
            case doc.ConditionalStep(if_=str(), else_=None):
                return union((_filled(step.output, end), scope.previous))
            case _ if "output" in keys(type(step)) and not isinstance(step, doc.EndStep):
                return _filled(getattr(step, "output", None), end)
            case doc.CacheStep():
                return end.previous
            case doc.SleepStep() | doc.ContinueAsNewStep():  # the latter only if it is skipped
                return scope.previous
            case doc.EndStep():
                return scope.previous if step.output is None else schema_of(step.output, scope.tree())
            case doc.SetStep():
                return schema_of(step.set_, scope.tree())
            case doc.TreeSearchStep():
                return closed({**self._node(step), "score": {"type": "number"}, "goal_reached": BOOLEAN})
            case _:
                return self._answer(step)

    def _node(self, step: doc.TreeSearchStep) -> Mapping[str, Schema]:
        """Return the schema of a search node, from the output that the proposing agent declares."""
        agent = self.blueprint.agents.get(step.propose)
        declared = agent.output_schema if agent else None
        candidate = element(shape(declared)).standalone() if declared is not None else None
        path = {"type": "array"} | ({"items": candidate} if candidate else {})
        return {"candidate": candidate, "path": path, "depth": INTEGER}

    def _said_of_state(self, _name: str, step: doc.BaseStep, place: Path) -> Schema:
        return declared_schema(step, self._answer(step)) if self.knows(step, place) else None

    def _declared(self, step: doc.BaseStep, place: Path) -> Schema:
        """Return the output schema that a step declares itself, independent of earlier steps."""
        return self._answer(step) if step.when is None and self.knows(step, place) else None

    def _answer(self, step: doc.BaseStep) -> Schema:
        if step.is_background:
            return LAUNCHED
        match step:
            case (
                doc.Step(fallback=doc.Fallback() as spare)
                | doc.GranularStep(fallback=doc.Fallback() as spare)
            ):
                alone = step.model_copy(update={"fallback": None})
                return union((self._answer(alone), self._answer(spare)))
            case doc.Step(output_schema=None, processors=doc.Processors(output=[_, *_])):
                return None
            case doc.Step(output_schema=None) | doc.GranularStep(output_schema=None):
                return self._given_by(step)
            case doc.Step() | doc.GranularStep():
                return step.output_schema
            case doc.HitlStep():
                return step.answers
            case doc.EventStep():
                return step.event_schema
            case doc.BaseStep(imports=str(blueprint)):
                return self.imported(blueprint) if getattr(step, "on_failure", "") == "fail" else None
            case doc.CacheStep():
                return self._answer(step.step)
            case _:
                return None

    def _given_by(self, step: doc.Step | doc.GranularStep) -> Schema:
        """Return the output schema that an agent or callable declares."""
        if isinstance(step, doc.Step) and step.call is not None:
            return self.typed(step.call)
        return union(self._answer_of(name) for name in doc.agents_of(step.agent))

    def _answer_of(self, name: str) -> Schema:
        agent = self.blueprint.agents.get(name)
        if agent is None:
            return None
        if agent.output_type is not None:
            return self.typed(agent.output_type)
        return agent.output_schema if agent.output_schema is not None else STRING


def _unread(step: doc.StateMachineStep, scope: Scope) -> Scope:
    """Return the scope in the states of a partly read machine: any step may have run."""
    return replace(
        scope, previous=None, is_open=True, steps=Growing(dict.fromkeys(_names(step)), scope.steps)
    )


def _names(step: doc.StateMachineStep) -> set[str]:
    return {one.name for state in step.states.values() for one in state.steps}


def after(scope: Scope, visit: Visit) -> Scope:
    """Return the scope of the step that follows a visited one."""
    name = visit.step.name
    return replace(
        scope,
        previous=visit.output,
        steps=scope.steps.plus(name, declared_schema(visit.step, visit.own) if visit.is_known else None),
        places=scope.places.plus(name, visit.path),
        perhaps=scope.perhaps.plus(name, None) if name in scope.perhaps else scope.perhaps,
        context=with_fields(scope.context, written(visit)),
        is_open=scope.is_open or name == UNNAMED,
        is_over=scope.is_over or (isinstance(visit.step, doc.EndStep) and visit.step.when is None),
    )


# The names under `steps.NAME`, and the end of a composite ------------------------------------------------


def facts(step: doc.BaseStep) -> Mapping[str, Schema]:
    """Return the names of a step besides its output, as `steps.NAME.…`."""
    known: dict[str, Schema] = {}
    if step.is_background:
        return known
    if step.policy is not None:
        known["cached"] = BOOLEAN
    if isinstance(step, doc.LoopStep):
        known["exhausted"] = BOOLEAN
    if isinstance(step, doc.MapStep | doc.BranchesAtOnce):
        known["failed"] = INTEGER
    if getattr(step, "fallback", None) is not None:
        known["fell_back"] = BOOLEAN
    if step.is_replaced:
        known["error"] = _NO_OR_ERROR
    if isinstance(step, doc.GranularStep):
        known |= {"turns": INTEGER, "tool_calls": INTEGER, "stopped": STRING}
    return known


def declared_schema(step: doc.BaseStep, own: Schema) -> Schema:
    """Return the schema of `steps.NAME`; the output of a skipped step is null."""
    if step.when is None:
        return closed({"output": own, **facts(step)})
    return perhaps_skipped(closed({"output": own, **facts(step)}))


def _end(step: doc.BaseStep, path: Path, scope: Scope, bodies: Mapping[str, Body]) -> Scope:
    """Return the scope of a step's `output`; `previous` is the output without that key."""
    match step:
        case doc.ConditionalStep():
            ends = [body.end for body in bodies.values() if not body.end.is_over]
            return replace(scope, previous=union(end.previous for end in ends or [scope]))
        case doc.MapStep():
            if step.keep == "none":
                return replace(scope, previous={"type": "null"})
            given = bodies["steps"].end.previous
            has_facts = step.on_error == "collect" or step.keep == "failed"
            items = _arrived(given, {"index": INTEGER, "item": None}) if has_facts else given
            return replace(scope, previous={"type": "array"} | ({"items": items} if items else {}))
        case doc.BranchesAtOnce():
            return replace(scope, previous=_by_branch(step, bodies))
        case doc.StateMachineStep():
            return _machine_end(step, path, scope, bodies)
        case doc.Step() | doc.GranularStep():  # a fallback does not run before an output
            return scope
        case _:
            return next((body.end for body in bodies.values()), scope)


def _by_branch(step: doc.BranchesAtOnce, bodies: Mapping[str, Body]) -> Schema:
    collects = step.on_branch_failure == "collect"
    given = {name: body.end.previous for name, body in bodies.items()}
    by_name = closed({name: _arrived(one, {}) if collects else one for name, one in given.items()})
    all_are_there = not isinstance(step, doc.RouterStep) and step.on_branch_failure != "skip"
    return by_name if all_are_there else {**by_name, "required": []}


def _arrived(given: Schema, more: Mapping[str, Schema]) -> Schema:
    """Return the schema of one collected result."""
    output = {"anyOf": [given, {"type": "null"}]} if given else None
    error = {"anyOf": [{"type": "object"}, {"type": "null"}]}
    result = closed({**more, "ok": BOOLEAN, "output": output, "error": error})
    return by_flag(result, "ok", {"output": given}, {"error": {"type": "object"}}) if given else result


def _machine_end(step: doc.StateMachineStep, path: Path, scope: Scope, bodies: Mapping[str, Body]) -> Scope:
    if scope.is_open or UNNAMED in _names(step):
        return _unread(step, scope)
    graph = _graph(step)
    last = [name for name in step.final if name in graph.reached]
    shared = Shared(step.states, path, scope, lambda name, one, _: bodies[name].end.steps[one.name])
    return replace(shared.where(graph.by(last)), previous=union(bodies[name].end.previous for name in last))


def _graph(step: doc.StateMachineStep) -> Graph:
    ways = {
        name: [(each.to, each.when is None) for each in state.transitions]
        for name, state in step.states.items()
    }
    return Graph(step.initial, step.final, ways, _failures(step))


def _failures(step: doc.StateMachineStep) -> Mapping[str, str]:
    return after_errors({name: state.on_error for name, state in step.states.items()}, step.on_error)


_ERROR = closed(
    {"code": STRING, "message": STRING, "type": STRING, "path": STRING, "retryable": BOOLEAN}
    | {"hint": {"type": ["string", "null"]}}
)
"""The schema of an error as data; see `ErrorInfo.as_value`."""
_FAILURE = closed({"step": STRING, "error": _ERROR})
_NO_OR_ERROR = {"anyOf": [_ERROR, {"type": "null"}]}
_ENDED = closed({"status": {"enum": ["completed", "failed", "cancelled"]}, "error": _NO_OR_ERROR})


def _next(carry: doc.Carry, end: Scope) -> Schema:
    return None if looks_like_target(carry.next) else check_expression(carry.next, end.tree()).schema


def _filled(output: Any, end: Scope) -> Schema:
    return end.previous if output is None else schema_of(output, end.tree())


LAUNCHED: Schema = closed({"task_id": STRING})
"""The schema of the output of a step in the background."""

_KEEPING = frozenset(MERGES) - {"no_merge"}


def written(visit: Visit) -> frozenset[str]:
    """Return the context fields that always have a value after a step."""
    step = visit.step
    if step.is_background:  # its task has a copy of the context
        return frozenset(step.writes) if step.when is None else frozenset()
    ends = [fields_there(body.end.context) for body in visit.bodies.values() if not body.end.is_over]
    inside: frozenset[str] = frozenset()
    match step:
        case _ if step.is_replaced:
            pass
        case doc.LoopStep() if ends:
            inside = ends[0]
        case doc.ConditionalStep() if step.if_ is None or step.else_ is not None:
            inside = ends[0].intersection(*ends[1:]) if ends else inside
        case doc.RouterStep():
            pass  # its branches may not run
        case doc.BranchesAtOnce(on_branch_failure="fail") if (
            step.merge in _KEEPING and not step.field_mapping
        ):
            inside = inside.union(*ends)
        case _:
            pass
    return inside | frozenset(step.writes) if step.when is None else frozenset()


def fields_there(context: Schema) -> frozenset[str]:
    """Return the fields that a context's schema requires."""
    return frozenset((context or {}).get("required", ()))


def with_fields(context: Schema, names: frozenset[str]) -> Schema:
    """Return the schema of a context in which these fields have a value."""
    properties = (context or {}).get("properties", ())
    required = (context or {}).get("required", ())
    added = [name for name in sorted(names) if name in properties and name not in required]
    if not added:
        return context
    there = required if isinstance(required, Growing) else Growing(dict.fromkeys(required))
    for name in added:
        there = there.plus(name, None)
    return {**context, "required": there}


def context_schema(blueprint: doc.Blueprint, typed: Callable[[str], Schema]) -> Schema:
    """Return the schema of the context: closed, with defaulted fields always present."""
    schema = blueprint.context_schema or {}
    if blueprint.context is not None and (schema := typed(blueprint.context)) is None:
        return None
    properties = schema.get("properties") or {}
    given = [name for name, field_ in properties.items() if isinstance(field_, dict) and "default" in field_]
    required = dict.fromkeys([*(schema.get("required") or []), *given])
    return {**schema, "type": "object", "required": list(required), "additionalProperties": False}
