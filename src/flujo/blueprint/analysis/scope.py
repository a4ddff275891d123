"""The names that an expression can use at one place of a blueprint, each with the schema of its value."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from flujo.blueprint.schemas.algebra import STRING, Schema, closed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.blueprint.language.traversal import Path

RUN = closed({"id": STRING, "started_at": STRING})


@dataclass(frozen=True)
class Scope:
    """The names in scope at one place."""

    input: Schema = None
    context: Schema = None
    previous: Schema = None
    steps: Mapping[str, Schema] = field(default_factory=dict)
    """Per step name, the schema of what follows `steps.NAME.`."""
    names: Mapping[str, Schema] = field(default_factory=dict)
    """Further names: `loop` in a loop, `item` and `index` in a map."""
    places: Mapping[str, Path] = field(default_factory=dict)
    """Where each of `steps` stands."""
    perhaps: Mapping[str, Path] = field(default_factory=dict)
    """The steps of a state machine that may not have run at this place, and where they stand."""
    is_open: bool = False
    """Whether there are names that could not be read, so that no name is unknown."""

    def tree(self, **more: Schema) -> Schema:
        """Return the scope as one schema, with `more` names beside the usual ones."""
        names = {
            "input": self.input,
            "context": self.context,
            "previous": self.previous,
            "steps": self._steps,
            "run": RUN,
        }
        return self._all({**names, **self.names, **more})

    @cached_property
    def _steps(self) -> Schema:
        return self._all(self.steps)

    def _all(self, names: Mapping[str, Schema]) -> Schema:
        return {**closed(names), "additionalProperties": {}} if self.is_open else closed(names)
