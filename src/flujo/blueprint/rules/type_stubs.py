"""The rule about recorded types: reports schemas of `flujo types` that are older than the source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Severity, rule
from flujo.blueprint.language import models as doc
from flujo.domain.values import looks_like_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path

STALE_TYPES = rule(
    "FLJ254",
    "stale-types",
    "The recorded schema of a Python type is outdated",
    finds="A class or function whose source has changed since its schema in `schemas/` was recorded, or a "
    "file there that cannot be read.",
    why="Expressions that read its fields are not checked, because the schema may have fields that the "
    "code no longer has.",
    example="# contexts.py has changed since schemas/contexts.json was written\n"
    "context: contexts:TriageContext",
    instead="# after `flujo types`, which writes schemas/contexts.json again\n"
    "context: contexts:TriageContext",
)


def stale_types(unit: Unit) -> Iterator[Diagnostic]:
    """Warn once of each module whose types are older than its source."""
    seen: set[str] = set()
    for target, path in targets(unit):
        module, _, name = target.partition(":")
        found = unit.types(module)
        if module in seen or found is None or found.changed is None:
            continue
        if name in found.types or not found.types:
            seen.add(module)
            yield STALE_TYPES.at(
                unit.span(*path),
                f"the recorded schema of `{target}` is ignored: {found.changed}",
                hint="run `flujo types` to record it again",
                severity=Severity.WARNING,
            )


def targets(unit: Unit) -> Iterator[tuple[str, Path]]:
    """Yield the classes that a blueprint names and the functions whose output may be read, with places."""
    if unit.blueprint.context is not None:
        yield unit.blueprint.context, ("context",)
    for name, agent in unit.blueprint.agents.items():
        if agent.output_type is not None:
            yield agent.output_type, ("agents", name, "output_type")
    for visit in unit.visits:
        match visit.step:
            case doc.Step(call=str(target), output_schema=None):
                yield target, (*visit.path, "call")
            case step if looks_like_target(over := getattr(step, "over", "")):
                yield over.strip(), (*visit.path, "over")
            case _:
                pass
