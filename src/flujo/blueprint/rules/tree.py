"""Reports the findings of `flujo.domain.checks` with the lines of the blueprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import RULES, Severity
from flujo.blueprint.language.error_recovery import StandIn
from flujo.blueprint.language.traversal import UNNAMED, placed
from flujo.blueprint.rules import (  # noqa: F401
    availability,
    background,
    batches,
    caching,
    conversations,
    effects,
    endings,
    files,
    names,
    state_machines,
    threads,
)
from flujo.blueprint.rules.callables import known, required
from flujo.domain import checks
from flujo.domain.paths import FAILURE, FINALLY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic, Span
    from flujo.blueprint.language import models as doc
    from flujo.blueprint.language.traversal import Path
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.steps import BaseStep, CallableRef
    from flujo.domain.tools import Known
    from flujo.domain.tree_checks.findings import Finding, Place

_OF_NAMES = frozenset({"FLJ210", "FLJ211"})
# These also apply to a step of which only the name could be read.
_OF_PARTS = _OF_NAMES | {"FLJ212", "FLJ213"}
# These also apply to a step that could only be read in part.
_OF_OTHERS = frozenset({"FLJ282", "FLJ312"})
# These apply only where every step could be read whole: they are about what another step is.
_AT_THE_AGENT = frozenset({"FLJ152"})
# A rule reports these where the agent is declared.


def tree_problems(unit: Unit, tree: Pipeline) -> Iterator[Diagnostic]:
    """Yield the findings of `flujo.domain.checks` in one blueprint; imports are checked separately."""
    models = _models(unit)

    def written(place: Place, _step: BaseStep) -> Collection[str]:
        return models[place].step.model_fields_set

    def requires(ref: CallableRef) -> str:
        return required(unit, ref.target)

    def knows(ref: CallableRef) -> Known | None:
        return known(unit, ref.target)

    if models:  # not a file of agents
        found = checks.findings(
            tree,
            into_imports=False,
            reserved=checks.RESERVED,
            written=written,
            requires=requires,
            knows=knows,
        )
        yield from placed_problems(unit, found)


def placed_problems(unit: Unit, findings: Iterable[Finding]) -> Iterator[Diagnostic]:
    """Yield findings in the tree of a blueprint with the lines that they are about."""
    models = _models(unit)
    is_whole = all(each.is_whole for each in models.values())
    for found in findings:
        if found.code in _AT_THE_AGENT or (found.code in _OF_OTHERS and not is_whole):
            continue
        if not found.place:
            yield _diagnostic(found, unit.span(*found.keys, key=found.at_key))
        elif found.place in models:
            model = models[found.place]
            if model.fits(found):
                span = unit.span(*model.path, *found.keys, key=found.at_key)
                yield _diagnostic(found, span, _other(found, models))
        else:
            place = _import_of(found.place, models)
            key = (
                "agent" if models[place].step.imports is None else "blueprint"
            )  # inside a tool, or an import
            span = unit.span(*models[place].path, key)
            there = _in_import(models[place], found, found.place[len(place) + 1 :])
            yield _diagnostic(found, span, _other(found, models), there)


@dataclass(frozen=True, slots=True)
class _Model:
    """A step of a blueprint with its file and path."""

    unit: Unit
    step: doc.BaseStep
    path: Path

    @property
    def is_whole(self) -> bool:
        """Whether the whole step could be read."""
        return self.step.name != UNNAMED and self.unit.knows(self.step, self.path)

    def fits(self, found: Finding) -> bool:
        """Return whether enough of the step could be read for a finding about it."""
        if found.code in _OF_NAMES:
            return self.step.name != UNNAMED
        if isinstance(self.step, StandIn):
            return False
        return found.code in _OF_PARTS or self.unit.knows(self.step, self.path)


def _models(unit: Unit) -> dict[Place, _Model]:
    """Return every step of a blueprint by its place in the tree."""

    def below(steps: Sequence[doc.BaseStep], path: Path, place: Place) -> Iterator[tuple[Place, _Model]]:
        for index, (step, here) in enumerate(placed(steps, path)):
            yield (*place, index), _Model(unit, step, here)
            for name, body, where in step.bodies():
                yield from below(body, (*here, *where), (*place, index, name))

    return {
        **dict(below(unit.blueprint.steps, ("steps",), ())),
        **dict(below(unit.blueprint.on_failure, ("on_failure",), (FAILURE,))),
        **dict(below(unit.blueprint.finally_, ("finally",), (FINALLY,))),
    }


def _diagnostic(found: Finding, span: Span, *related: tuple[Span, str] | None) -> Diagnostic:
    return RULES[found.code].at(
        span,
        found.message,
        hint=found.hint,
        severity=Severity.WARNING if found.is_warning else Severity.ERROR,
        related=tuple(filter(None, related)),
    )


def _other(found: Finding, models: Mapping[Place, _Model]) -> tuple[Span, str] | None:
    """Return the span of the second step of a finding."""
    if found.other is None:
        return None
    place, label = found.other
    return models[place].unit.span(*models[place].path, "name"), label


def _import_of(place: Place, models: Mapping[Place, _Model]) -> Place:
    """Return the place of the import that contains a place."""
    return next(place[:length] for length in range(len(place), 0, -1) if place[:length] in models)


def _in_import(importing: _Model, found: Finding, place: Place) -> tuple[Span, str] | None:
    """Return the span of a finding in the blueprint that a step imports, or in one below it."""
    step = importing.step
    child = importing.unit.imports.get(step.imports or "")
    if child is None:
        return None
    models = _models(child)
    if place in models:
        return child.span(*models[place].path, *found.keys, key=found.at_key), "here"
    below = _import_of(place, models)
    return _in_import(models[below], found, place[len(below) + 1 :])
