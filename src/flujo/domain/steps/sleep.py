"""`sleep`: waits for some time, or until a moment; no process has to run meanwhile."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar

from flujo.domain import values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep
from flujo.domain.values import Logic, Logical
from flujo.domain.wording import span


@node
class SleepStep(BaseStep[Any, Any]):
    """Waits for some time, or until a moment; its output is that of the step before."""

    kind: ClassVar[str] = "sleep"
    only_waits: ClassVar[str] = "waits for a time"

    _: KW_ONLY
    for_s: float | None = takes(values.seconds, default=None)
    """Seconds from the commit that begins the wait, by the database's clock."""
    until: Takes[Logical | None, Logic | None] = takes(values.moment, default=None)
    """The moment, or an expression or a callable that returns it: RFC 3339 text with a time zone."""

    def _adapt(self, arguments: dict[str, Any]) -> None:
        self._one_of(arguments, "for_s", "until")

    def summary(self) -> str:
        """Return how long it waits."""
        if self.for_s is not None:
            return f"waits for {span(self.for_s)}"
        source = str(self.until)
        literal = source[1:-1]
        return f"waits until {literal if values.quoted_moment(literal) == source else source}"
