"""Rules about names: unique in their scope, and usable in expressions."""

from flujo.blueprint.diagnostics import rule

DUPLICATE_NAME = rule(
    "FLJ210",
    "duplicate-step-name",
    "Two steps of one list have the same name",
    finds="A step with the name of an earlier step of the same list.",
    why="`steps.NAME` would be ambiguous, and both results would have the same path in the journal.",
    example="steps:\n  - {name: sort, call: skills.a:one}\n  - {name: sort, call: skills.a:two}",
    instead="steps:\n  - {name: sort, call: skills.a:one}\n  - {name: check, call: skills.a:two}",
)
SHADOWED_NAME = rule(
    "FLJ211",
    "shadowed-step-name",
    "A step hides another step of the same name",
    finds="A step inside a branch or a loop with the name of an earlier step of an enclosing list.",
    why="`steps.NAME` would mean one step inside and another step outside.",
    example="steps:\n  - {name: sort, call: s:a}\n  - {kind: conditional, name: c, if: 'true',\n"
    "     then: [{name: sort, call: s:b}]}",
    instead="steps:\n  - {name: sort, call: s:a}\n  - {kind: conditional, name: c, if: 'true',\n"
    "     then: [{name: again, call: s:b}]}",
)
RESERVED_NAME = rule(
    "FLJ212",
    "reserved-name",
    "A name that expressions cannot refer to",
    finds="A step, item, loop variable or context field whose name is a reserved word of CEL, or that "
    "is not an identifier.",
    why="`steps.in.output` does not parse, because `in` is an operator.",
    example="steps:\n  - {name: in, call: skills.io:read}",
    instead="steps:\n  - {name: read, call: skills.io:read}",
)
