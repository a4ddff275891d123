"""The scope that a machine's states share: each sees the steps of other states that have run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flujo.blueprint.analysis.growing import Growing
from flujo.blueprint.schemas.algebra import Schema, closed, union

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

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
        known: dict[str, list[Schema]] = {}
        places: dict[str, Path] = {}
        self._states: dict[str, list[str]] = {}
        for name, state in states.items():
            for index, one in enumerate(state.steps):
                place = (*path, "states", name, "steps", index)
                known.setdefault(one.name, []).append(tells(name, one, place))
                places.setdefault(one.name, place)
                self._states.setdefault(one.name, []).append(name)
        self._perhaps: Growing[Path | None] = Growing(scope.perhaps, places)
        self._known = {name: _either(schemas) for name, schemas in known.items()}
        self._optional = {name: schema and {**schema, "required": []} for name, schema in self._known.items()}

    def where(self, certain: Collection[str]) -> Scope:
        """Return the scope where the states of `certain` have been visited."""
        steps = Growing(_Steps(self._states, self._known, self._optional, certain), self._scope.steps)
        return replace(self._scope, steps=steps, perhaps=self._perhaps)


@dataclass(frozen=True)
class _Steps(Mapping[str, Schema]):
    """The schema of each step of a machine, in one of its states."""

    states: Mapping[str, Sequence[str]]
    """The states that have a step, by the step's name."""
    known: Mapping[str, Schema]
    optional: Mapping[str, Schema]
    certain: Collection[str]
    """The states that have been visited."""

    def __getitem__(self, name: str) -> Schema:
        is_certain = any(state in self.certain for state in self.states[name])
        return (self.known if is_certain else self.optional)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)


def _either(schemas: Sequence[Schema]) -> Schema:
    """Return the schema of a step that shares its name with others; None if one is unknown."""
    if None in schemas:
        return None
    first, *others = schemas
    keys = [key for key in first["properties"] if all(key in other["properties"] for other in others)]
    required = [key for key in keys if all(key in one["required"] for one in schemas)]
    known = closed({key: union(one["properties"][key] for one in schemas) for key in keys})
    return {**known, "required": required}
