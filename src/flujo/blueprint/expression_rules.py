"""What expressions and texts say: each is checked against the names that are in scope where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.blueprint import document as doc
from flujo.blueprint.diagnostics import Rule, Severity, one_of, rule, suggest
from flujo.blueprint.expressions import check_expression, check_text
from flujo.blueprint.nodes import Document
from flujo.blueprint.scopes import COMPOSITES, Path, Schema, Visit, closed, kind_of, schema_of, texts, types
from flujo.domain import canonical
from flujo.domain.leaves import looks_like_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.blueprint.diagnostics import Diagnostic, Span
    from flujo.blueprint.expressions import Checked
    from flujo.blueprint.rules import Unit


@dataclass(frozen=True)
class Place:
    """An expression or a text where it stands, with the names that it sees."""

    path: Path
    source: str
    tree: Schema
    logic: bool = False
    expect: str | None = None
    prompt: tuple[str, str] | None = None
    """Project path and text, for a text that stands in a file of its own."""

    @property
    def names_callable(self) -> bool:
        """Whether a callable stands where an expression could."""
        return self.logic and looks_like_target(self.source)

    def checked(self) -> Checked:
        """Return what the expression or text gives, and what is wrong with it."""
        if self.logic:
            return check_expression(self.source, self.tree, expect=self.expect)
        return check_text(self.source, self.tree)


# Where expressions stand ---------------------------------------------------------------------------------


def places(unit: Unit, visit: Visit) -> Iterator[Place]:
    """Yield every expression and text of one step, those of the agent it asks included."""
    step, here = visit.step, visit.path
    yield from _logic(step.when, (*here, "when"), visit.scope.tree(), "bool")
    if isinstance(step, COMPOSITES):
        yield from _in_composite(unit, visit, visit.scope.tree())
        yield from _value(step.output, (*here, "output"), visit.end.tree())
    else:
        yield from _in_leaf(unit, visit, visit.scope.tree())
    if step.cache is not None:
        yield from _logic(step.cache.key, (*here, "cache", "key"), visit.scope.tree(), None)
    own = visit.scope.tree(output=visit.own)
    for name, save in step.save.items():
        if isinstance(save, doc.Append):
            yield from _logic(save.append, (*here, "save", name, "append"), own, None)
        else:
            yield from _logic(save, (*here, "save", name), own, None)


def _in_leaf(unit: Unit, visit: Visit, tree: Schema) -> Iterator[Place]:
    here = visit.path
    match visit.step:
        case doc.Step() as step:
            yield from _value(step.input, (*here, "input"), tree)
            yield from _value(step.with_, (*here, "with"), tree)
            yield from _instructions(unit, step.agent, tree)
        case doc.HitlStep() as step:
            yield from _value(step.message, (*here, "message"), tree)
            if isinstance(step.on_deadline, doc.AnswerInstead):
                yield from _value(step.on_deadline.answer, (*here, "on_deadline", "answer"), tree)
        case doc.ImportStep() as step:
            yield from _value(step.with_, (*here, "with"), tree)
            if isinstance(step.on_failure, doc.OutputInstead):
                yield from _value(step.on_failure.output, (*here, "on_failure", "output"), tree)
        case doc.CacheStep() as step:
            yield from _logic(step.key, (*here, "key"), tree, None)
        case doc.TreeSearchStep() as step:
            yield from _tree_search(unit, visit, step, tree)
        case _:
            pass


def _in_composite(unit: Unit, visit: Visit, tree: Schema) -> Iterator[Place]:
    here = visit.path
    match visit.step:
        case doc.ConditionalStep() as step:
            yield from _logic(step.if_, (*here, "if"), tree, "bool")
            yield from _logic(step.switch, (*here, "switch"), tree, None)
        case doc.LoopStep() as step:
            yield from _loop(visit, step, tree)
        case doc.StateMachineStep() as step:
            yield from _transitions(visit, step)
        case doc.MapStep() as step:
            yield from _logic(step.over, (*here, "over"), tree, "list")
        case doc.RouterStep() as step:
            yield from _value(step.input, (*here, "input"), tree)
            yield from _instructions(unit, step.router, tree)
        case _:
            pass


def places_at_top(unit: Unit) -> Iterator[Place]:
    """Yield the texts of the blueprint's own `output`."""
    yield from _value(unit.blueprint.output, ("output",), unit.end.tree())


def _loop(visit: Visit, step: doc.LoopStep, tree: Schema) -> Iterator[Place]:
    end = visit.end.tree()
    yield from _logic(step.until, (*visit.path, "until"), end, "bool")
    for name, carry in step.carry.items():
        yield from _value(carry.initial, (*visit.path, "carry", name, "initial"), tree)
        yield from _logic(carry.next, (*visit.path, "carry", name, "next"), end, None)


def _tree_search(unit: Unit, visit: Visit, step: doc.TreeSearchStep, tree: Schema) -> Iterator[Place]:
    yield from _value(step.input, (*visit.path, "input"), tree)
    found = visit.own["properties"]
    node = {name: found[name] for name in ("candidate", "path", "depth")}
    asked = visit.scope.tree(previous=closed({**node, "input": None}))
    for name in dict.fromkeys((step.propose, step.evaluate)):
        yield from _instructions(unit, name, asked)
    judged = {name: found[name] for name in ("candidate", "score", "depth")}
    yield from _logic(step.goal, (*visit.path, "goal"), visit.scope.tree(**judged), "bool")


def _transitions(visit: Visit, step: doc.StateMachineStep) -> Iterator[Place]:
    for name, state in step.states.items():
        tree = visit.bodies[name].end.tree()
        for index, transition in enumerate(state.transitions):
            path = (*visit.path, "states", name, "transitions", index, "when")
            yield from _logic(transition.when, path, tree, "bool")


def _instructions(unit: Unit, name: str | None, tree: Schema) -> Iterator[Place]:
    agent = unit.blueprint.agents.get(name or "")
    if agent is None or not agent.template:
        return
    path = ("agents", name or "", "instructions")
    if agent.instructions is not None:
        yield Place(path, agent.instructions, tree)
    elif prompt := unit.prompts.get(name or ""):
        yield Place(path, prompt[1], tree, prompt=prompt)


def _logic(source: str | None, path: Path, tree: Schema, expect: str | None) -> Iterator[Place]:
    if source is not None:
        yield Place(path, source, tree, logic=True, expect=expect)


def _value(value: Any, path: Path, tree: Schema) -> Iterator[Place]:
    for below, text in texts(value):
        yield Place((*path, *below), text, tree)


# What is wrong with them ---------------------------------------------------------------------------------

_IF = "steps:\n  - {kind: conditional, name: c, if: "
SYNTAX = rule(
    "FLJ205",
    "expression-syntax",
    "An expression or a placeholder that cannot be read",
    finds="A CEL expression that does not parse, a `{{` without `}}`, or the syntax of another template "
    "language inside the braces.",
    why="It could not be evaluated when the run comes to it.",
    example=f"{_IF}'steps.sort.output = 1', then: []}}",
    instead=f"{_IF}'steps.sort.output == 1', then: []}}",
)
UNKNOWN_NAME = rule(
    "FLJ204",
    "unknown-name",
    "An expression reads a name that is not there",
    finds="A name that is not in scope: a step that comes later or is inside another composite, a field "
    "that the schema of an output, of the input or of the context does not have.",
    why="Scope is lexical: an expression sees the steps before it in its own list and in those around it.",
    example=f"{_IF}'steps.sort.output.lable == \"bug\"', then: []}}",
    instead=f"{_IF}'steps.sort.output.label == \"bug\"', then: []}}",
)
WRONG_TYPE = rule(
    "FLJ206",
    "expression-type",
    "An expression gives or compares values of the wrong type",
    finds="A condition that is not true or false, a comparison of text with a number, an operator or a "
    "function that does not take what it is given.",
    why="CEL converts nothing behind one's back, so it would fail when the run comes to it.",
    example=f"{_IF}'steps.sort.output.label', then: []}}",
    instead=f"{_IF}'steps.sort.output.label == \"bug\"', then: []}}",
)
MAY_BE_MISSING = rule(
    "FLJ207",
    "may-be-missing",
    "An expression reads a field that may not be there",
    finds="A field that its schema does not require, or that may be null, read without `has()` or `get()`.",
    why="The run would fail at this expression on the day the field is left out.",
    example="steps:\n  - {name: note, call: s:note, with: {text: '{{ input.note }}'}}",
    instead='steps:\n  - {name: note, call: s:note, with: {text: \'{{ get(input, "note", "") }}\'}}',
)
NOT_CHECKED = rule(
    "FLJ208",
    "not-checked",
    "An expression reads a field that no schema tells of",
    finds="A field of a value without a schema: an output of a callable, of a class named by `output_type`, "
    "an input without `input_schema`.",
    why="A misspelt field is found only when the run comes to it.",
    example="steps:\n  - {name: look, call: s:look}\n"
    "  - {name: say, agent: a, input: '{{ steps.look.output.name }}'}",
    instead="steps:\n  - {name: look, call: s:look, output_schema: {type: object, required: [name],\n"
    "     properties: {name: {type: string}}}}\n"
    "  - {name: say, agent: a, input: '{{ steps.look.output.name }}'}",
)
TOO_MUCH = rule(
    "FLJ209",
    "expression-limits",
    "An expression that is larger or costs more than is allowed",
    finds="A source over 2 kB, or nesting over what is evaluated in bounded time.",
    why="Expressions are for small decisions between steps: they hold up the whole run while they work.",
    example="steps:\n  - {name: s, agent: a,\n"
    "     input: '{{ input.a.map(x, input.b.map(y, input.c.map(z, y))) }}'}",
    instead="steps:\n  - {name: s, call: skills.combine:all}",
)
NOT_REPRODUCIBLE = rule(
    "FLJ219",
    "not-reproducible",
    "An expression asks the environment, the clock or chance",
    finds="Names such as `env`, `now()` or `random()`, of which expressions have none.",
    why="A replay would see something else than the run saw; and a secret must not get into a prompt.",
    example="steps:\n  - {name: s, agent: a, input: 'It is {{ now() }}.'}",
    instead="steps:\n  - {name: s, agent: a, input: 'It is {{ run.started_at }}.'}",
)
_RULE_OF: dict[str, Rule] = {
    "unknown-name": UNKNOWN_NAME,
    "unknown-function": UNKNOWN_NAME,
    "not-reproducible": NOT_REPRODUCIBLE,
    "type-mismatch": WRONG_TYPE,
    "not-bool": WRONG_TYPE,
    "not-list": WRONG_TYPE,
    "not-string": WRONG_TYPE,
    "not-json": WRONG_TYPE,
    "may-be-missing": MAY_BE_MISSING,
    "may-be-null": MAY_BE_MISSING,
    "expression-too-long": TOO_MUCH,
}


def expression_problems(unit: Unit, place: Place) -> Iterator[Diagnostic]:
    """Yield what is wrong with an expression or text, with the exact piece of it."""
    checked = place.checked()
    for problem in checked.problems:
        found = _RULE_OF.get(problem.slug, SYNTAX)
        span = located(unit, place, problem.start, problem.end)
        yield found.at(span, problem.message, hint=problem.hint, severity=Severity(problem.severity))
    for chain in checked.reads:
        yield from _unchecked(unit, place, chain)


def _unchecked(unit: Unit, place: Place, chain: Sequence[str]) -> Iterator[Diagnostic]:
    """Say that nobody can tell whether a field exists, where an expression reads one of an unknown value."""
    whole = 3 if chain[0] == "steps" else 1
    known: Schema = place.tree
    for name in chain[:whole]:
        properties = (known or {}).get("properties") or {}
        if name not in properties:
            return
        known = properties[name]
    if known is None and len(chain) > whole:
        start = max(place.source.find(".".join(chain)), 0)
        value = ".".join(chain[:whole])
        yield NOT_CHECKED.at(
            located(unit, place, start, start + len(".".join(chain))),
            f"`{'.'.join(chain)}` is not checked: `{value}` has no schema",
            hint=_SCHEMA_OF.get(chain[0], "an `output_schema` on the step would tell"),
            severity=Severity.INFO,
        )


_SCHEMA_OF = {
    "input": "an `input_schema` would tell",
    "context": "fields given in place, as `context_schema`, are checked",
}


def located(unit: Unit, place: Place, start: int, end: int) -> Span:
    """Return where a piece of an expression or text stands in its file."""
    if place.prompt is None:
        document, path = unit.place(place.path)
        return document.span_in(path, start, end)
    return Document(*place.prompt).between(start, end)


# Types that have to agree --------------------------------------------------------------------------------

CONTEXT_FIELD = rule(
    "FLJ214",
    "unknown-context-field",
    "A step saves into a field that the context does not have",
    finds="A key of `save:` that is no property of `context_schema`, or `save:` without a context.",
    why="The context is typed: a misspelt field would be a value that nobody reads.",
    example="context_schema: {properties: {label: {type: string}}}\n"
    "steps:\n  - {name: sort, agent: a, save: {lable: output}}",
    instead="context_schema: {properties: {label: {type: string}}}\n"
    "steps:\n  - {name: sort, agent: a, save: {label: output}}",
)
CONTEXT_TYPE = rule(
    "FLJ215",
    "context-type",
    "A step saves a value of another type than the field's",
    finds="An expression of `save:` whose type is known and is not the field's.",
    why="The run would fail right after the step has been paid for.",
    example="context_schema: {properties: {count: {type: integer}}}\n"
    "steps:\n  - {name: sort, agent: a, save: {count: output}}",
    instead="context_schema: {properties: {count: {type: integer}}}\n"
    "steps:\n  - {name: sort, agent: a, save: {count: size(output)}}",
)


def save_targets(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse fields that the context does not have, and values that do not fit them."""
    schema = visit.scope.context
    if schema is None:
        return
    fields = schema.get("properties") or {}
    for name, save in visit.step.save.items():
        path = (*visit.path, "save", name)
        if name not in fields:
            yield CONTEXT_FIELD.at(
                unit.span(*path, key=True),
                f"the context has no field {name!r}",
                hint=suggest(name, fields, what="it has")
                or f"declare it: `context_schema: {{type: object, properties: {{{name}: …}}}}`",
            )
        else:
            yield from _saved_type(unit, visit, path, save, fields[name])


def _saved_type(
    unit: Unit, visit: Visit, path: Path, save: doc.Append | str, field: Schema
) -> Iterator[Diagnostic]:
    wanted = types(field)
    source = save.append if isinstance(save, doc.Append) else save
    if isinstance(save, doc.Append):
        if wanted and "array" not in wanted:
            yield CONTEXT_TYPE.at(
                unit.span(*path),
                f"`append` needs a list, and the context's {path[-1]!r} is {one_of(sorted(wanted))}",
                hint="save the value without `append`, or make the field an array",
            )
            return
        wanted = types(field.get("items")) if isinstance(field, dict) else frozenset()
    given = _logic_types(source, visit.scope.tree(output=visit.own))
    if given and wanted and not given & widened(wanted):
        yield CONTEXT_TYPE.at(
            unit.span(*path),
            f"{source!r} gives {one_of(sorted(given))}, and the context's {path[-1]!r} is "
            f"{one_of(sorted(wanted))}",
            hint="convert it in the expression, or change the field's type",
        )


def _logic_types(source: str, tree: Schema) -> frozenset[str]:
    return frozenset() if looks_like_target(source) else types(check_expression(source, tree).schema)


def widened(wanted: frozenset[str]) -> frozenset[str]:
    """Return the types that fit: an integer is a number too, and a number may turn out whole."""
    return wanted | {"number", "integer"} if wanted & {"number", "integer"} else wanted


CARRY_TYPE = rule(
    "FLJ217",
    "carry-type",
    "A loop variable changes its type",
    finds="A `carry` whose `initial` is of one type and whose `next` gives another.",
    why="The steps of the loop would see text in the first iteration and, say, a list in the second.",
    example="carry: {notes: {initial: \"\", next: 'loop.notes + [steps.check.output]'}}",
    instead="carry: {notes: {initial: [], next: 'loop.notes + [steps.check.output]'}}",
)


def carry_types(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse loop variables that change their type."""
    if not isinstance(visit.step, doc.LoopStep):
        return
    end = visit.end.tree()
    for name, carry in visit.step.carry.items():
        first = types(kind_of(schema_of(carry.initial, visit.scope.tree())))
        later = _logic_types(carry.next, end)
        if first and later and not later & widened(first):
            yield CARRY_TYPE.at(
                unit.span(*visit.path, "carry", name, "next"),
                f"`loop.{name}` starts as {one_of(sorted(first))} and goes on as {one_of(sorted(later))}",
                hint="give `initial` a value of the same type, or `null` when there is none yet",
                related=((unit.span(*visit.path, "carry", name, "initial"), "it starts as this"),),
            )


IMPOSSIBLE_BRANCH = rule(
    "FLJ218",
    "switch-branches",
    "The branches of a switch are not what its value can be",
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
    listed = schema.get("enum") if isinstance(schema, dict) else None
    if not listed:
        return
    # The branch of a value that is no text has its name as JSON writes it.
    values = [value if isinstance(value, str) else canonical.encode(value).decode() for value in listed]
    for name in step.branches or {}:
        if name not in values:
            yield IMPOSSIBLE_BRANCH.at(
                unit.span(*visit.path, "branches", name, key=True),
                f"`{step.switch}` is never {name!r}",
                hint=suggest(name, values, what="it is one of"),
            )
    missing = [value for value in values if value not in (step.branches or {})]
    if missing and step.default is None:
        yield IMPOSSIBLE_BRANCH.at(
            unit.span(*visit.path, "switch"),
            f"`{step.switch}` may be {one_of(missing)}, which no branch takes",
            hint="add the branch, or a `default:`",
            severity=Severity.WARNING,
        )
