"""Rules about maps whose items are executed by workers of a queue."""

from __future__ import annotations

from flujo.blueprint.diagnostics import rule

_MAP = (
    "steps:\n  - kind: map\n    name: digest\n    over: input\n    config: {executor: queue}\n"
    "    steps: [{name: summary, agent: writer}]"
)

NO_EXECUTOR = rule(
    "FLJ331",
    "no-executor",
    "An executor that a step cannot have",
    finds="`executor: queue` on a tool, or on a step that is not a map, that runs in the background, or that "
    "is the inner step of another one.",
    why="Workers execute the items of a map. Another step has no items.",
    example="steps:\n  - {name: summary, agent: writer, config: {executor: queue}}",
    instead=_MAP,
)
BATCH_SIZE = rule(
    "FLJ332",
    "batch-size",
    "A batch size that cannot be",
    finds="A `batch_size` that is not from 1 to 10000, or without `executor: queue`.",
    why="One run executes the items of a batch, and a run has at least one item and a bounded input.",
    example=_MAP.replace("queue}", "queue, batch_size: 0}"),
    instead=_MAP.replace("queue}", "queue, batch_size: 20}"),
)
THREAD_IN_BATCH = rule(
    "FLJ333",
    "thread-in-a-batch",
    "A thread inside a map over workers",
    finds="A step with a `thread` inside a map with `executor: queue`.",
    why="A run of its own executes the step, and cannot read the messages of the run of the map.",
    example=_MAP.replace("writer}", "writer, thread: talk}"),
    instead=_MAP,
)
