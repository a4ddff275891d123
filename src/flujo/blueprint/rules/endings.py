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
_UNDO = "{name: undo, call: skills.a:undo}"
HANDLER_OF_IMPORT = rule(
    "FLJ314",
    "on-failure-inside",
    "An imported blueprint, or one that is a tool, with `on_failure` or `finally`",
    finds="A blueprint with `on_failure` or `finally` that another imports, or that an agent has as a tool.",
    why="`on_failure` and `finally` belong to a run. Inside another run they would not be executed.",
    example="# order.yaml has `on_failure`\nsteps:\n  - {kind: import, name: order, blueprint: order.yaml}",
    instead="steps:\n  - {kind: import, name: order, blueprint: order_steps.yaml}\non_failure:\n  - " + _UNDO,
)
IN_HANDLER = rule(
    "FLJ315",
    "ends-in-on-failure",
    "A step in `on_failure` or `finally` that ends the run, or outlives it",
    finds="`continue_as_new`, an `end` without `of: body`, or a background step, in one of these lists.",
    why="How the run ends is known already, and it ends after the last of these steps.",
    example="steps: [{name: pay, call: skills.a:pay}]\non_failure:\n  - " + _NEXT,
    instead="steps: [{name: pay, call: skills.a:pay}]\non_failure:\n  - " + _UNDO,
)
RESERVED_BRANCH = rule(
    "FLJ316",
    "reserved-branch",
    "A branch or state called `unfinished`",
    finds="A branch or state with the name `unfinished`.",
    why="Its path would be that of the records of unfinished attempts.",
    example="steps:\n  - {kind: router, name: r, choose: input, branches: {unfinished: [" + _UNDO + "]}}",
    instead="steps:\n  - {kind: router, name: r, choose: input, branches: {open: [" + _UNDO + "]}}",
)
WAIT_IN_FINALLY = rule(
    "FLJ317",
    "wait-in-finally",
    "A step in `finally` that waits",
    finds="A step in `finally` that asks a human, or waits for a time, an event or a task.",
    why="`finally` has 60 seconds, also after a cancel, so that a run always comes to its end.",
    example="steps: [{name: pay, call: skills.a:pay}]\n"
    "finally:\n  - {kind: hitl, name: ask, message: 'Close it?'}",
    instead="steps:\n  - {name: pay, call: skills.a:pay}\n  - {kind: hitl, name: ask, message: 'Close it?'}\n"
    "finally:\n  - " + _UNDO,
)
