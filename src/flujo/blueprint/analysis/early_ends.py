"""The scope after a body that a step of `kind: end` may end before its last step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flujo.blueprint.schemas.algebra import union

if TYPE_CHECKING:
    from flujo.blueprint.analysis.scope import Scope
    from flujo.blueprint.schemas.algebra import Schema


@dataclass
class EarlyEnds:
    """The places of one body at which it may end, and the steps after the first of them."""

    scopes: list[Scope] = field(default_factory=list)
    later: list[str] = field(default_factory=list)

    def add(self, scope: Scope) -> None:
        """Add a place, where `previous` is the output of the body."""
        self.scopes.append(scope)

    def follow(self, name: str) -> None:
        """Note a step of the body, in their order."""
        if self.scopes:
            self.later.append(name)

    def joined(self, last: Scope) -> Scope:
        """Return the scope after the body, given that after its last step.

        A step after an early end may be skipped, and what it writes may be missing.
        """
        if not self.scopes:
            return last
        ways = self.scopes if last.is_over else [*self.scopes, last]
        steps = last.steps
        for name in self.later:
            steps = steps.plus(name, perhaps_skipped(steps[name]))
        there = [frozenset((way.context or {}).get("required", ())) for way in ways]
        always = there[0].intersection(*there[1:])
        context = last.context
        if context is not None and "required" in context:
            context = {**context, "required": [name for name in context["required"] if name in always]}
        return replace(
            last, previous=union(way.previous for way in ways), steps=steps, context=context, is_over=False
        )


def perhaps_skipped(known: Schema) -> Schema:
    """Return the schema of `steps.NAME` of a step that may be skipped: then its output is null."""
    if known is None:
        return None
    properties: dict[str, Any] = known["properties"]
    output = properties["output"]
    maybe = {"anyOf": [output, {"type": "null"}]} if output else None
    return {**known, "properties": {**properties, "output": maybe}, "required": ["output"]}
