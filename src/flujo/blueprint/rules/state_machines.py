"""Rules about state machines: unknown, unreachable and dead-end states, unused transitions."""

from flujo.blueprint.diagnostics import rule

_HEAD = "kind: state_machine\nname: review\ninitial: draft\nfinal: [done]\nstates:\n"
UNKNOWN_STATE = rule(
    "FLJ231",
    "unknown-state",
    "A state machine names an unknown state",
    finds="An `initial`, a `to` or an entry of `final` that is not a key of `states:`.",
    why="The run would fail there, after the earlier states have been paid for.",
    example=_HEAD + "  draft: {transitions: [{to: dnoe}]}\n  done: {}",
    instead=_HEAD + "  draft: {transitions: [{to: done}]}\n  done: {}",
)
UNREACHED_STATE = rule(
    "FLJ232",
    "unreached-state",
    "A state that cannot be reached",
    finds="A state that no sequence of transitions from `initial` leads to.",
    why="Its steps never run. Often a transition names the wrong state.",
    example=_HEAD + "  draft: {transitions: [{to: done}]}\n  edit: {transitions: [{to: done}]}\n  done: {}",
    instead=_HEAD + "  draft: {transitions: [{to: edit}]}\n  edit: {transitions: [{to: done}]}\n  done: {}",
)
DEAD_END = rule(
    "FLJ233",
    "dead-end",
    "A state machine that cannot reach a final state",
    finds="A state that is not in `final` and has no transitions, or a machine in which no path leads "
    "from `initial` to a final state.",
    why="The run would fail in that state, or loop until `max_transitions`.",
    example=_HEAD + "  draft: {steps: [{name: write, agent: a}]}\n  done: {}",
    instead=_HEAD + "  draft: {steps: [{name: write, agent: a}], transitions: [{to: done}]}\n  done: {}",
)
NEVER_TAKEN = rule(
    "FLJ234",
    "transition-never-taken",
    "A transition that is never taken",
    finds="A transition after one without `when`, or one of a final state.",
    why="The first transition that holds wins, and one without `when` always holds; a final state ends the "
    "machine.",
    example="transitions:\n  - {to: done}\n  - {to: edit, when: '!steps.check.output.ok'}",
    instead="transitions:\n  - {to: edit, when: '!steps.check.output.ok'}\n  - {to: done}",
)
