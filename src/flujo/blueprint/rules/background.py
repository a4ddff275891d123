"""Rules about steps in the background and the steps that await them."""

from flujo.blueprint.diagnostics import rule

_LAUNCH = "  - {name: report, call: skills.a:report, config: {execution_mode: background}}\n"

NO_TASK = rule(
    "FLJ280",
    "cannot-run-in-the-background",
    "A step that cannot run in the background",
    finds="`execution_mode: background` on an `await`, on the inner step of a cache, a fallback or a tool, "
    "or on a step with a `thread`, also further inside.",
    why="A task is a run of its own: it cannot be a part of another step, and cannot read the messages of "
    "its parent.",
    example="steps:\n  - {name: report, agent: writer, thread: talk, config: {execution_mode: background}}",
    instead="steps:\n  - {name: report, agent: writer, config: {execution_mode: background}}",
)
NOT_A_TASK = rule(
    "FLJ282",
    "awaits-no-task",
    "An `await` of a step that is not in the background",
    finds="A name in `task` or `tasks` that is not the name of an earlier step in the background.",
    why="There would be no task to wait for.",
    example="steps:\n  - {name: report, call: skills.a:report}\n  - {kind: await, name: done, task: report}",
    instead="steps:\n" + _LAUNCH + "  - {kind: await, name: done, task: report}",
)
TASK_UNDER_LIMIT = rule(
    "FLJ283",
    "background-under-a-limit",
    "A step in the background under a limit",
    finds="`execution_mode: background` in a blueprint with a `budget`, or in one that it imports.",
    why="The usage of a task does not count against the limits of its parent, so the limit would not hold.",
    example="budget: {total_cost_usd_limit: 1}\nsteps:\n" + _LAUNCH,
    instead="steps:\n" + _LAUNCH,
)
