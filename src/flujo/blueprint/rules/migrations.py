"""Rules about migrations: a renamed step must be found, and its record must have one meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import RULES, rule
from flujo.domain.migrations import migration_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.domain.pipeline import Pipeline

_STEPS = "\nsteps:\n  - {name: count, call: skills.text:count}"
rule(
    "FLJ284",
    "migration-to-no-step",
    "A migration to a step that does not exist",
    finds="A `to` of `migrations:` that is not the path of a step of this blueprint.",
    why="The record of the old step would belong to no step, so no waiting run could continue.",
    example="migrations: [{from: length, to: cuont}]" + _STEPS,
    instead="migrations: [{from: length, to: count}]" + _STEPS,
)
rule(
    "FLJ285",
    "migration-repeated",
    "Two migrations from one path",
    finds="The same `from` in two entries of `migrations:`.",
    why="A recorded step can be only one step of the blueprint.",
    example="migrations: [{from: length, to: count}, {from: length, to: count}]" + _STEPS,
    instead="migrations: [{from: length, to: count}]" + _STEPS,
)
rule(
    "FLJ286",
    "migration-unfit",
    "A migration that a run cannot follow",
    finds="A `from` that is still a step or the `to` of another entry (a chain or a swap), paths in two "
    "places, a renamed branch or state, and a renamed step that is on a thread or runs in the background.",
    why="The recorded path would have two meanings, or values of the record name the step as well: decisions "
    "name branches and states, threads and tasks name their steps.",
    example="migrations: [{from: count, to: count}]" + _STEPS,
    instead="migrations: [{from: length, to: count}]" + _STEPS,
)


def unfit_migrations(unit: Unit, pipeline: Pipeline) -> Iterator[Diagnostic]:
    """Report migrations that no run could follow."""
    for one in migration_findings(pipeline):
        yield RULES[one.code].at(unit.span("migrations", one.index, one.key), one.message, hint=one.hint)
