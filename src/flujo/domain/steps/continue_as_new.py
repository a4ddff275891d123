"""`continue_as_new`: ends the run, and a new run of the same pipeline continues it."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar

from flujo.domain import values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep
from flujo.domain.values import Value, Valued


@node
class ContinueAsNewStep(BaseStep[Any, Any]):
    """Ends the run, and begins a new run of the same pipeline that has its context and an empty journal."""

    kind: ClassVar[str] = "continue_as_new"
    ends_run: ClassVar[bool] = True

    _: KW_ONLY
    input: Takes[Valued, Value] = takes(values.value, default=None)
    """The input of the new run, with placeholders; by default that of this run."""

    def summary(self) -> str:
        """Return that the run begins again."""
        return "begins again as a new run"
