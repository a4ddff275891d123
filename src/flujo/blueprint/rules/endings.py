"""Rules about steps that end the run, the blueprint or a body."""

from flujo.blueprint.diagnostics import rule

_NEXT = "{kind: continue_as_new, name: next}"

INSIDE = rule(
    "FLJ311",
    "ends-the-run-inside",
    "A `continue_as_new` where it cannot end the run",
    finds="`continue_as_new` in a `map`, `parallel`, `router` or `cache`, in an imported blueprint, in a "
    "tool or fallback, or in a step that runs in the background.",
    why="Other work of the run would not be finished, and the new run would not know of it.",
    example="steps:\n  - {kind: map, name: each, over: input, steps: [" + _NEXT + "]}",
    instead="steps:\n  - {kind: map, name: each, over: input, steps: [{name: one, call: skills.a:one}]}\n"
    "  - " + _NEXT,
)
_STOP = "{kind: end, name: stop, when: item == 0%s}"
INSIDE_OTHERS = rule(
    "FLJ313",
    "ends-the-blueprint-inside",
    "An `end` where it cannot end the blueprint",
    finds="`kind: end` without `of: body` in a `map`, `parallel`, `router` or `cache`, or in a step that "
    "runs in the background.",
    why="Other branches or items run at the same time, and would not be finished.",
    example="steps:\n  - {kind: map, name: each, over: input, steps: ["
    + _STOP % ""
    + ", {name: one, call: skills.a:one}]}",
    instead="steps:\n  - {kind: map, name: each, over: input, steps: ["
    + _STOP % ", of: body"
    + ", {name: one, call: skills.a:one}]}",
)
AFTER = rule(
    "FLJ312",
    "never-reached",
    "A step after a `continue_as_new` or an `end`",
    finds="A step that follows a `continue_as_new` or an `end` without `when`.",
    why="It is never executed.",
    example="steps:\n  - " + _NEXT + "\n  - {name: late, call: skills.a:late}",
    instead="steps:\n  - {name: late, call: skills.a:late}\n  - " + _NEXT,
)
