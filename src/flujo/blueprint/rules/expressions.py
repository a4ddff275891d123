"""Rules about expressions and texts: each is checked against the names in its scope."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.analysis.definitions import related
from flujo.blueprint.diagnostics import Rule, Severity, rule
from flujo.blueprint.reading.source_map import Document
from flujo.blueprint.rules.data_flow import UNWRITTEN_FIELD
from flujo.blueprint.schemas.algebra import types

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.blueprint.analysis.expression_sites import ExpressionSite
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic, Span
    from flujo.blueprint.schemas.algebra import Schema

_IF = "steps:\n  - {kind: conditional, name: c, if: "
SYNTAX = rule(
    "FLJ205",
    "expression-syntax",
    "An expression or a placeholder that does not parse",
    finds="A CEL expression that does not parse, a `{{` without `}}`, or the syntax of another template "
    "language inside the braces.",
    why="It cannot be evaluated at run time.",
    example=f"{_IF}'steps.sort.output = 1', then: []}}",
    instead=f"{_IF}'steps.sort.output == 1', then: []}}",
)
UNKNOWN_NAME = rule(
    "FLJ204",
    "unknown-name",
    "An expression reads an unknown name",
    finds="A name that is not in scope: a step that comes later or is inside another composite, a field "
    "that the schema of an output, of the input or of the context does not have.",
    why="Scope is lexical: an expression sees the steps before it in its own list and in those around it.",
    example=f"{_IF}'steps.sort.output.lable == \"bug\"', then: []}}",
    instead=f"{_IF}'steps.sort.output.label == \"bug\"', then: []}}",
)
WRONG_TYPE = rule(
    "FLJ206",
    "expression-type",
    "An expression returns or compares values of the wrong type",
    finds="A condition that is not a boolean, a comparison of text with a number, an operator or a "
    "function with arguments of the wrong type. A warning if only some possible types are wrong.",
    why="CEL does not convert types implicitly, so this fails at run time.",
    example=f"{_IF}'steps.sort.output.label', then: []}}",
    instead=f"{_IF}'steps.sort.output.label == \"bug\"', then: []}}",
)
MAY_BE_MISSING = rule(
    "FLJ207",
    "may-be-missing",
    "An expression reads a field that may be missing",
    finds="A field that its schema does not require, or that may be null, read without `has()` or `get()`.",
    why="The run fails at this expression when the field is missing.",
    example="steps:\n  - {name: note, call: s:note, with: {text: '{{ input.note }}'}}",
    instead='steps:\n  - {name: note, call: s:note, with: {text: \'{{ get(input, "note", "") }}\'}}',
)
IMPOSSIBLE_VALUE = rule(
    "FLJ260",
    "impossible-value",
    "A comparison with a value that never occurs",
    finds="`==`, `!=` or `in` between a name whose schema lists its values and a text that is not listed.",
    why="It is always false (or, with `!=`, always true): the branch is never taken.",
    example="# label is one of refund, bug\n" + f"{_IF}'steps.sort.output.label == \"bugs\"', then: []}}",
    instead="# label is one of refund, bug\n" + f"{_IF}'steps.sort.output.label == \"bug\"', then: []}}",
)
NOT_CHECKED = rule(
    "FLJ208",
    "not-checked",
    "An expression reads a field of a value without a schema",
    finds="A field of a value whose schema is unknown: the output of a callable, of a class named by "
    "`output_type`, an input without `input_schema`.",
    why="A misspelt field is found only at run time.",
    example="steps:\n  - {name: look, call: s:look}\n"
    "  - {name: say, agent: a, input: '{{ steps.look.output.name }}'}",
    instead="steps:\n  - {name: look, call: s:look, output_schema: {type: object, required: [name],\n"
    "     properties: {name: {type: string}}}}\n"
    "  - {name: say, agent: a, input: '{{ steps.look.output.name }}'}",
)
TOO_MUCH = rule(
    "FLJ209",
    "expression-limits",
    "An expression that is too large or too expensive",
    finds="A source over 2 kB, or nesting too deep to be evaluated in bounded time.",
    why="Expressions are for small decisions between steps: the run is blocked while one is evaluated.",
    example="steps:\n  - {name: s, agent: a,\n"
    "     input: '{{ input.a.map(x, input.b.map(y, input.c.map(z, y))) }}'}",
    instead="steps:\n  - {name: s, call: skills.combine:all}",
)
NOT_REPRODUCIBLE = rule(
    "FLJ219",
    "not-reproducible",
    "An expression reads the environment, the clock or randomness",
    finds="Names such as `env`, `now()` or `random()`, which expressions do not have.",
    why="A replay would see other values than the run, and a secret could end up in a prompt.",
    example="steps:\n  - {name: s, agent: a, input: 'It is {{ now() }}.'}",
    instead="steps:\n  - {name: s, agent: a, input: 'It is {{ run.started_at }}.'}",
)
DIVISION = rule(
    "FLJ239",
    "division-by-zero",
    "An expression divides by zero",
    finds="`/ 0` or `% 0` of whole numbers.",
    why="The run fails at this expression.",
    example=f"{_IF}'input.total / 0 > 1', then: []}}",
    instead=f"{_IF}'input.total / 2 > 1', then: []}}",
)
WHOLE_DIVISION = rule(
    "FLJ155",
    "whole-division",
    "A division that drops the fraction of some numbers only",
    finds="`/` with a value of the JSON type `number`, and no operand that always has a fraction.",
    why="JSON does not tell 3 from 3.0. Two whole numbers divide to a whole number: for `n / 2`, 3 gives "
    "1 and 3.5 gives 1.75.",
    example="# input.n is a number\n" + f"{_IF}'input.n / 2 > 1', then: []}}",
    instead="# input.n is a number\n" + f"{_IF}'input.n / 2.0 > 1.0', then: []}}",
)
FOREIGN_TEMPLATE = rule(
    "FLJ157",
    "foreign-template",
    "A placeholder of another language in a text",
    finds="`${{ x }}` (unless `x` is a number: then `$` is a currency), `${x}`, and `{x}` if `x` is "
    "a name here.",
    why="Flujo replaces only `{{ … }}`. The model would read the placeholder itself.",
    example="steps:\n  - {name: s, agent: a, input: 'Answer {input.question}'}",
    instead="steps:\n  - {name: s, agent: a, input: 'Answer {{ input.question }}'}",
)
_RULE_OF: dict[str, Rule] = {
    "unknown-name": UNKNOWN_NAME,
    "unknown-function": UNKNOWN_NAME,
    "not-reproducible": NOT_REPRODUCIBLE,
    "type-mismatch": WRONG_TYPE,
    "not-bool": WRONG_TYPE,
    "not-int": WRONG_TYPE,
    "not-list": WRONG_TYPE,
    "not-number": WRONG_TYPE,
    "not-string": WRONG_TYPE,
    "not-json": WRONG_TYPE,
    "may-be-missing": MAY_BE_MISSING,
    "impossible-value": IMPOSSIBLE_VALUE,
    "may-be-null": MAY_BE_MISSING,
    "division-by-zero": DIVISION,
    "whole-division": WHOLE_DIVISION,
    "foreign-template": FOREIGN_TEMPLATE,
    "expression-too-long": TOO_MUCH,
}


def expression_problems(
    unit: Unit, place: ExpressionSite, unwritten: frozenset[str] = frozenset()
) -> Iterator[Diagnostic]:
    """Yield the findings about an expression or text, each at the exact part.

    Args:
        unit: the blueprint.
        place: the expression or text in it.
        unwritten: the fields of the context that no step writes.
    """
    checked = place.checked
    for problem in checked.problems:
        found = _RULE_OF.get(problem.slug, SYNTAX)
        span = located(unit, place, problem.start, problem.end)
        root, _, name = place.source[problem.start : problem.end].partition(".")
        if found is MAY_BE_MISSING and root == "context" and name in unwritten:
            yield UNWRITTEN_FIELD.at(
                span,
                f"no step writes `context.{name}`, and it has no default",
                hint=f"write it in an earlier step (`save: {{{name}: …}}`), give it a `default`, or require "
                f"it at the start: `required: [{name}]`",
                severity=Severity.WARNING,
                related=((unit.span("context_schema", "properties", name, key=True), "declared here"),),
            )
            continue
        yield found.at(
            span,
            problem.message,
            hint=problem.hint,
            severity=Severity(problem.severity),
            related=related(unit, place, problem.end),
        )
    for chain in checked.reads:
        yield from _unchecked(unit, place, chain)


def _unchecked(unit: Unit, place: ExpressionSite, chain: Sequence[str]) -> Iterator[Diagnostic]:
    """Report a field of a value without a schema, whose existence cannot be checked."""
    whole = 3 if chain[0] == "steps" else 1
    known: Schema = place.tree
    for name in chain[:whole]:
        properties = (known or {}).get("properties") or {}
        if name not in properties:
            return
        known = properties[name]
    if not _tells_fields(known) and len(chain) > whole:
        start = max(place.source.find(".".join(chain)), 0)
        value = ".".join(chain[:whole])
        yield NOT_CHECKED.at(
            located(unit, place, start, start + len(".".join(chain))),
            f"`{'.'.join(chain)}` is not checked: `{value}` has no schema",
            hint=_SCHEMA_OF.get(
                chain[0],
                "add an `output_schema` to the step, or record its function's return type with `flujo types`",
            ),
            severity=Severity.INFO,
        )


_SCHEMA_OF = {
    "input": "add an `input_schema`",
    "context": "run `flujo types` to record the fields of the class",
}


def _tells_fields(schema: Schema) -> bool:
    if not isinstance(schema, dict) or types(schema) != {"object"}:
        return schema is not None
    return "properties" in schema or schema.get("additionalProperties") not in (None, True)


def located(unit: Unit, place: ExpressionSite, start: int, end: int) -> Span:
    """Return the span of a part of an expression or text in its file."""
    if place.prompt is None:
        document, path = unit.place(place.path)
        return document.span_in(path, start, end)
    return Document(*place.prompt).between(start, end)
