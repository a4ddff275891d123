"""Checks of schedules: blueprints report the findings with lines, pipelines in Python raise them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flujo.domain.cron import cron_problem, zone_problem
from flujo.domain.queues import priority_problem
from flujo.domain.schedules import NAME, Schedule

CRON_LINE = "FLJ296"
TIME_ZONE = "FLJ297"
INPUT = "FLJ298"
CONTRADICTION = "FLJ299"

Violations = Callable[[Any, Any], Iterable[str]]
"""Yields how a value does not fit a JSON Schema, given the schema and the value."""

_METADATA_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ScheduleFinding:
    """Something wrong with one of several schedules."""

    code: str
    index: int
    key: str | None
    """The key with the wrong value; None for the schedule itself."""
    message: str
    hint: str


def schedule_findings(
    schedules: Sequence[Schedule],
    pipeline: str,
    *,
    input_schema: Any = None,
    context_schema: Any = None,
    violations: Violations,
) -> Iterator[ScheduleFinding]:
    """Yield every problem of the schedules of one pipeline.

    Args:
        schedules: in their order.
        pipeline: its name, which a schedule without a name has as well.
        input_schema: the JSON Schema of its input, if it has one.
        context_schema: the JSON Schema of its context, if it has one.
        violations: checks a value.
    """
    names: set[str] = set()
    for index, schedule in enumerate(schedules):
        name = schedule.name or pipeline
        for code, key, problem in (*_unusable(schedule), *setting_problems(schedule, name)):
            yield ScheduleFinding(code, index, key, *problem)
        if name in names:
            hint = "give each schedule its own `name`: the ids of its runs begin with it"
            yield ScheduleFinding(CONTRADICTION, index, "name", f"two schedules are named {name!r}", hint)
        names.add(name)
        if input_schema is not None and (wrong := _first(violations(input_schema, schedule.input))):
            yield ScheduleFinding(INPUT, index, "input", *_of_input(name, schedule, wrong))
        if context_schema is not None and schedule.context:
            given = {"type": "object", **context_schema, "required": []}
            if wrong := _first(violations(given, dict(schedule.context))):
                message = f"the `context` of schedule {name!r} does not fit `context_schema`: {wrong}"
                yield ScheduleFinding(INPUT, index, "context", message, "change the `context`")


Problem = tuple[str, str, tuple[str, str]]
"""The code, the key, and the message with a hint."""


def _unusable(schedule: Schedule) -> Iterator[Problem]:
    if wrong := cron_problem(schedule.cron):
        yield CRON_LINE, "cron", wrong
    if wrong := zone_problem(schedule.timezone):
        yield TIME_ZONE, "timezone", wrong


def setting_problems(schedule: Schedule, name: str) -> Iterator[Problem]:
    """Yield the settings of one schedule that cannot be, or that contradict each other."""
    if not NAME.fullmatch(name):
        hint = "give it a `name` of letters, digits, `_` and `-` that begins with a letter"
        yield CONTRADICTION, "name", (f"{name!r} cannot name a schedule", hint)
    if schedule.overlap == "queue" and schedule.catch_up == "none":
        message = "`overlap: queue` makes runs late, and `catch_up: none` skips late runs"
        yield CONTRADICTION, "overlap", (message, "use `catch_up: last` or `all`, or `overlap: skip`")
    if schedule.overlap == "skip" and schedule.catch_up == "all":
        message = "`overlap: skip` skips the times that `catch_up: all` fires, except the first"
        yield CONTRADICTION, "catch_up", (message, "use `overlap: queue` or `allow`, or `catch_up: last`")
    if schedule.priority and schedule.queue is None:
        message = "the schedule has a priority and no queue"
        yield CONTRADICTION, "priority", (message, "a priority orders the runs of a queue: add `queue`")
    elif problem := priority_problem(schedule.priority, "the schedule"):
        yield CONTRADICTION, "priority", problem
    for key in schedule.metadata:
        if not _METADATA_KEY.fullmatch(key):
            message = f"{key!r} cannot be a metadata key"
            yield CONTRADICTION, "metadata", (message, "a key has up to 63 letters, digits and `_`")


def _of_input(name: str, schedule: Schedule, wrong: str) -> tuple[str, str]:
    if schedule.input is None:
        return f"schedule {name!r} has no `input`, and the blueprint needs one", "add `input:`"
    return f"the `input` of schedule {name!r} does not fit `input_schema`: {wrong}", "change the `input`"


def _first(found: Iterable[str]) -> str | None:
    return next(iter(found), None)
