"""Rules about schedules: a run that no person starts must be able to start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.blueprint.diagnostics import RULES, rule
from flujo.blueprint.language.models import scheduled
from flujo.blueprint.schemas.checks import problems
from flujo.domain.schedule_checks import schedule_findings
from flujo.domain.schedules import Schedule
from flujo.json_schema.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic

_STEPS = "\nsteps:\n  - {name: count, call: skills.text:count}"
_NEEDS = "input_schema: {type: object, required: [folder]}\n"
rule(
    "FLJ296",
    "cron-line",
    "A cron line that is not valid or never fires",
    finds="A `cron` that does not have five fields, has a value out of range, or names a day that none of "
    "its months has.",
    why="Workers could never start a run of such a schedule.",
    example='schedule: {cron: "0 0 31 2 *"}' + _STEPS,
    instead='schedule: {cron: "0 0 28 2 *"}' + _STEPS,
)
rule(
    "FLJ297",
    "unknown-time-zone",
    "A time zone that does not exist",
    finds="A `timezone` that is not a name of the IANA database, or that this machine does not have.",
    why="The times of the schedule would be unknown.",
    example='schedule: {cron: "30 2 * * *", timezone: Berlin}' + _STEPS,
    instead='schedule: {cron: "30 2 * * *", timezone: Europe/Berlin}' + _STEPS,
)
rule(
    "FLJ298",
    "schedule-input",
    "A schedule whose input the blueprint refuses",
    finds="An `input` that does not fit the `input_schema`, a schedule without an input of a blueprint that "
    "needs one, and a `context` that does not fit the `context_schema`.",
    why="Every run of the schedule would be refused.",
    example=_NEEDS + 'schedule: {cron: "30 2 * * *"}' + _STEPS,
    instead=_NEEDS + 'schedule: {cron: "30 2 * * *", input: {folder: inbox}}' + _STEPS,
)
rule(
    "FLJ299",
    "schedule-contradiction",
    "Schedules or settings of a schedule that exclude each other",
    finds="Two schedules of one name, a name that cannot begin the id of a run, `catch_up` and `overlap` "
    "that contradict each other, a priority without a queue or out of range, and metadata with a key "
    "that is not a name.",
    why="The ids of a schedule's runs begin with its name, so two schedules cannot share one. With `overlap: "
    "queue` runs are late, and `catch_up: none` skips late runs. `catch_up: all` starts several runs in a "
    "row, and `overlap: skip` skips all but the first.",
    example='schedule: {cron: "0 * * * *", overlap: queue, catch_up: none}' + _STEPS,
    instead='schedule: {cron: "0 * * * *", overlap: queue, catch_up: last}' + _STEPS,
)


def unfit_schedules(unit: Unit) -> Iterator[Diagnostic]:
    """Report schedules whose runs could not start."""
    blueprint = unit.blueprint
    tree = [Schedule(**type(one).to_tree(dict(one))) for one in scheduled(blueprint)]
    found = schedule_findings(
        tree,
        blueprint.name,
        input_schema=blueprint.input_schema,
        context_schema=blueprint.context_schema,
        violations=violations,
    )
    for one in found:
        above = ("schedule", one.index) if isinstance(blueprint.schedule, list) else ("schedule",)
        path = above if one.key is None else (*above, one.key)
        is_there = path != above and unit.document.node(path) is not None
        span = unit.span(*path) if is_there else unit.span(*above, key=True)
        yield RULES[one.code].at(span, one.message, hint=one.hint)


def violations(schema: Any, value: Any) -> Iterator[str]:
    """Yield how a value does not fit a JSON Schema; nothing for a schema that other rules refuse."""
    if not any(problem.severity == "error" for problem in problems(schema)):
        yield from Validator(schema).violations(value)
