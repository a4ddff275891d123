"""Rules about threads: conversations that several agents share."""

from flujo.blueprint.diagnostics import rule

_TWO = "kind: parallel\nname: both\nbranches:\n  one: [{name: a, agent: x, thread: talk}]\n"
SHARED_THREAD = rule(
    "FLJ428",
    "shared-thread",
    "Several branches add to the same thread at once",
    finds="A thread that steps of two branches of a `parallel` or `router` use, or the steps of a `map` with "
    "`merge`, unless `merge` decides which messages are kept.",
    why="Each branch has its own copy of the thread, as it was when the branches began. Two conversations "
    "cannot become one, so the run would fail after all branches have been paid for.",
    example=_TWO + "  two: [{name: b, agent: y, thread: talk}]",
    instead=_TWO + "  two: [{name: b, agent: y, thread: other}]",
)
THREAD_WITHOUT_AGENT = rule(
    "FLJ429",
    "thread-without-agent",
    "A thread on a step that asks no agent",
    finds="`thread` on a step with `call`.",
    why="A thread is what agents say to each other. A callable has no messages, and sees none.",
    example="steps:\n  - {name: count, call: skills.text:count, thread: talk}",
    instead="steps:\n  - {name: count, agent: counter, thread: talk}",
)
