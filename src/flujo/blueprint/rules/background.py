"""Rules about steps in the background and the steps that await them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import rule
from flujo.domain.pipeline import QUEUE_EXECUTOR
from flujo.domain.queues import DEFAULT_QUEUE
from flujo.domain.wording import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic

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
    "A step in the background under a limit, without a budget",
    finds="`execution_mode: background` in a blueprint with a `budget`, or in one that it imports, without "
    "`config.budget`, or with one that has not every limit on amounts, or a larger one.",
    why="A task may use something after its run has ended. So what it may use is held of the limits of the "
    "run when it is launched, and for that it must be known.",
    example="budget: {total_cost_usd_limit: 1}\nsteps:\n" + _LAUNCH,
    instead="budget: {total_cost_usd_limit: 1}\nsteps:\n"
    + _LAUNCH.replace("background}", "background, budget: {total_cost_usd_limit: 0.25}}"),
)
WITHOUT_TASK = rule(
    "FLJ288",
    "setting-of-a-task",
    "A setting of tasks where there is no task, or that cannot be",
    finds="`queue`, `priority` or `budget` in the `config` of a step that does not run in the background, a "
    "`priority` without a `queue`, and one that is out of range.",
    why="The setting would have no effect.",
    example="steps:\n  - {name: report, call: skills.a:report, config: {queue: slow}}",
    instead="# flujo.toml: [queues.slow]\nsteps:\n"
    + _LAUNCH.replace("background}", "background, queue: slow}"),
)
UNKNOWN_QUEUE = rule(
    "FLJ289",
    "unknown-queue",
    "A queue that flujo.toml does not have",
    finds="A `queue` of a step in the background that is not `default`, and no table `[queues.NAME]` in "
    "flujo.toml.",
    why="No worker can serve such a queue, so the task would wait forever.",
    example="# flujo.toml: [queues.slow]\nsteps:\n"
    + _LAUNCH.replace("background}", "background, queue: slwo}"),
    instead="# flujo.toml: [queues.slow]\nsteps:\n"
    + _LAUNCH.replace("background}", "background, queue: slow}"),
)


def unknown_queues(unit: Unit) -> Iterator[Diagnostic]:
    """Report queues of steps in the background that the settings do not have."""
    if unit.project.queues is None:
        return
    known = [DEFAULT_QUEUE, *unit.project.queues]
    for visit in unit.visits:
        queue = visit.step.config.queue
        launches = visit.step.is_background or visit.step.config.executor == QUEUE_EXECUTOR
        if queue is not None and launches and queue not in known:
            meant = suggest(queue, known, what="there are", cutoff=0.6)
            yield UNKNOWN_QUEUE.at(
                unit.span(*visit.path, "config", "queue"),
                f"step {visit.step.name!r}: there is no [queues.{queue}] in flujo.toml",
                hint=f"write a table [queues.{queue}]; {meant}",
            )
