"""Rules about `continue_as_new`, which ends the run."""

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
AFTER = rule(
    "FLJ312",
    "never-reached",
    "A step after a `continue_as_new`",
    finds="A step that follows a `continue_as_new` without `when`.",
    why="It is never executed.",
    example="steps:\n  - " + _NEXT + "\n  - {name: late, call: skills.a:late}",
    instead="steps:\n  - {name: late, call: skills.a:late}\n  - " + _NEXT,
)
