"""`event`: waits for an event from outside; no process has to run meanwhile."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar

from flujo.domain import values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, In, Out, Question
from flujo.domain.steps.arguments import OnDeadline, instead
from flujo.domain.values import Logic, Logical, TimeLimit, TimeLimited


@node
class EventStep(BaseStep[In, Out]):
    """Waits for an event from outside, indefinitely or until a deadline; its output is the payload."""

    kind: ClassVar[str] = "event"
    only_waits: ClassVar[str] = "waits for an event"

    _: KW_ONLY
    event: str | None = takes(values.event_name, default=None)
    """The name of the event; by default the name of the step."""
    key: Takes[Logical | None, Logic | None] = takes(values.logic, default=None)
    """The key with which an event finds this run without its id: an expression, or a callable."""
    event_schema: Any = takes(values.schema, default=None)
    """A JSON Schema or a class that the payload must match."""
    deadline_s: Takes[TimeLimited | None, float | TimeLimit | None] = takes(values.time_limit, default=None)
    """Seconds to wait for the event, by the database's clock;
    `{"value": "{{ … }}", "max": 600}` takes them from data."""
    on_deadline: OnDeadline = takes(instead, default="fail")
    """The action at the deadline: fail the step, or continue with the answer of `{"answer": …}`."""

    def summary(self) -> str:
        """Return the event and its key."""
        return f"waits for the event {self.event_name}" + (
            "" if self.key is None else f" with the key {self.key}"
        )

    @property
    def question(self) -> Question:
        """The event, with its schema and the deadline."""
        return Question(self.event_schema, self.deadline_s, self.event_name, self.on_deadline)

    @property
    def event_name(self) -> str:
        """The name of the event."""
        return self.event or self.name
