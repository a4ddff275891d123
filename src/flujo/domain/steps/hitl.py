"""`hitl`: asks a human, and waits."""

from __future__ import annotations

from dataclasses import KW_ONLY
from functools import cached_property
from typing import Any, ClassVar

from flujo.domain import choices, values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, In, Out, Question, Shape
from flujo.domain.steps.arguments import OnDeadline, instead
from flujo.domain.values import TimeLimit, TimeLimited, Value, Valued


def _answer_schema(given: Any, where: str) -> Any:
    return choices.with_expressions(values.schema(given, where))


@node
class HumanInTheLoopStep(BaseStep[In, Out]):
    """Asks a human and waits, indefinitely or until a deadline."""

    kind: ClassVar[str] = "hitl"
    shape: ClassVar[Shape] = "human"
    only_waits: ClassVar[str] = "asks a human"

    message: Takes[Valued, Value] = takes(values.value)
    """The question; placeholders are filled in."""
    _: KW_ONLY
    answer_schema: Any = takes(_answer_schema, default=None)
    """A JSON Schema or a class that the answer must match; `enum: "{{ … }}"` takes the choices from data."""
    deadline_s: Takes[TimeLimited | None, float | TimeLimit | None] = takes(values.time_limit, default=None)
    """Seconds to wait for the answer, by the database's clock;
    `{"value": "{{ … }}", "max": 600}` takes them from data."""
    on_deadline: OnDeadline = takes(instead, default="fail")
    """The action at the deadline: fail the step, or continue with the answer of `{"answer": …}`."""

    def summary(self) -> str:
        """Return the question."""
        return f"asks a human: {values.one_line(self.message)}"

    @property
    def question(self) -> Question:
        """What is known of the schema before the question is opened, and the deadline of the answer."""
        return self._asked

    @cached_property
    def _asked(self) -> Question:  # kept because each visit of the question looks for choices in its schema
        return Question(choices.fixed(self.answer_schema), self.deadline_s, on_deadline=self.on_deadline)
