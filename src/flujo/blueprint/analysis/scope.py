"""The names that an expression can use at one place of a blueprint, each with the schema of its value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from flujo.blueprint.analysis.growing import Growing
from flujo.blueprint.expressions.narrowing import facts_of, narrowed
from flujo.blueprint.schemas.algebra import STRING, Schema, closed
from flujo.blueprint.schemas.shapes import shape
from flujo.domain.values import looks_like_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.blueprint.expressions.narrowing import Fact
    from flujo.blueprint.language.traversal import Path

RUN = closed({"id": STRING, "started_at": STRING})


@dataclass(frozen=True)
class Scope:
    """The names in scope at one place."""

    input: Schema = None
    context: Schema = None
    previous: Schema = None
    steps: Growing[Schema] = field(default_factory=Growing)
    """By step name, the schema of `steps.NAME`."""
    names: Mapping[str, Schema] = field(default_factory=dict)
    """Further names: `loop` in a loop, `item` and `index` in a map."""
    places: Growing[Path] = field(default_factory=Growing["Path"])
    """The place of each of `steps`."""
    perhaps: Growing[Path | None] = field(default_factory=Growing["Path | None"])
    """The steps of a state machine that may not have run yet, with their places; None once they have run."""
    is_open: bool = False
    """Whether names are missing because a step could not be read, so no name counts as unknown."""

    is_over: bool = False
    """Whether nothing after this place runs: the step before always ends the blueprint, or fails."""

    def tree(self, **more: Schema) -> Schema:
        """Return the scope as one schema, with `more` names added."""
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
        # The mapping itself stands for its names: a list of them for each step would be quadratic.
        return {**self._all({}), "properties": self.steps, "required": self.steps}

    def where(self, condition: str | None, *, holds: bool = True) -> Scope:
        """Return the scope where a condition is true, or false: what it checks is there and not null."""
        if condition is None or looks_like_target(condition):
            return self
        found = self
        for fact in facts_of(condition, holds=holds):
            found = found._knowing(fact)
        return found

    def _knowing(self, fact: Fact) -> Scope:
        match fact.chain:
            case ("input" | "context" | "previous" as root, *rest):
                known: Schema = narrowed(shape(getattr(self, root)), tuple(rest), fact.flag).standalone()
                return replace(self, **{root: known}) if known is not None else self
            case ("steps", str(name), *rest) if name in self.steps:
                known = narrowed(shape(self.steps[name]), tuple(rest), fact.flag).standalone()
                return replace(self, steps=self.steps.plus(name, known))
            case (str(name), *rest) if name in self.names:
                known = narrowed(shape(self.names[name]), tuple(rest), fact.flag).standalone()
                return replace(self, names={**self.names, name: known})
            case _:
                return self

    def _all(self, names: Mapping[str, Schema]) -> Schema:
        return {**closed(names), "additionalProperties": {}} if self.is_open else closed(names)
