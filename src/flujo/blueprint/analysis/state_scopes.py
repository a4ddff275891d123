"""The scope that a machine's states share: each sees the steps of other states that have run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.blueprint.schemas.algebra import Schema, closed, union

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flujo.blueprint.analysis.scope import Scope
    from flujo.blueprint.language import models as doc
    from flujo.blueprint.language.traversal import Path


class Shared:
    """The scope that a machine's states share; `tells` returns the schema of a state's step."""

    def __init__(
        self,
        states: Mapping[str, doc.State],
        path: Path,
        scope: Scope,
        tells: Callable[[str, doc.BaseStep, Path], Schema],
    ) -> None:
        self._scope = scope
        self._named = {name: {one.name for one in state.steps} for name, state in states.items()}
        known: dict[str, list[Schema]] = {}
        perhaps: dict[str, Path] = dict(scope.perhaps)
        for name, state in states.items():
            for index, one in enumerate(state.steps):
                place = (*path, "states", name, "steps", index)
                known.setdefault(one.name, []).append(tells(name, one, place))
                perhaps.setdefault(one.name, place)
        self._perhaps = perhaps
        self._known = {name: _either(schemas) for name, schemas in known.items()}
        self._optional = {name: schema and {**schema, "required": []} for name, schema in self._known.items()}

    def where(self, certain: frozenset[str]) -> Scope:
        """Return the scope where the states of `certain` have been visited."""
        sure = {name: self._known[name] for state in certain for name in self._named[state]}
        steps = {**self._scope.steps, **self._optional, **sure}
        return replace(self._scope, steps=steps, perhaps=self._perhaps)


def _either(schemas: Sequence[Schema]) -> Schema:
    """Return the schema of a step that shares its name with others; None if one is unknown."""
    if None in schemas:
        return None
    first, *others = schemas
    keys = [key for key in first["properties"] if all(key in other["properties"] for other in others)]
    required = [key for key in keys if all(key in one["required"] for one in schemas)]
    known = closed({key: union(one["properties"][key] for one in schemas) for key in keys})
    return {**known, "required": required}
