"""`hitl`: asks a human, and waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

from flujo.domain import values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, In, Out, Question, Shape
from flujo.domain.steps.arguments import instead
from flujo.domain.values import Value, Valued

OnDeadline = Takes[Literal["fail"] | Mapping[str, Valued], Literal["fail"] | Mapping[str, Any]]


@node
class HumanInTheLoopStep(BaseStep[In, Out]):
    """Asks a human and waits, without a limit or until the deadline passes."""

    kind: ClassVar[str] = "hitl"
    shape: ClassVar[Shape] = "human"

    message: Takes[Valued, Value] = takes(values.value)
    """The question; texts are filled in."""
    _: KW_ONLY
    answer_schema: Any = takes(values.schema, default=None)
    """A JSON Schema or a class that the answer has to fit."""
    deadline_s: float | None = None
    """Counted by the database's clock from when the question is asked."""
    on_deadline: OnDeadline = takes(instead, default="fail")
    """What happens then: the step fails, or goes on as if `{"answer": …}` had been answered."""

    def summary(self) -> str:
        """Return the question."""
        return f"asks a human: {values.one_line(self.message)}"

    @property
    def question(self) -> Question:
        """The schema and the deadline of the answer."""
        return Question(self.answer_schema, self.deadline_s)
