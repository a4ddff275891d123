"""`await`: waits for background tasks, and takes their results; no process has to run meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

from flujo.domain import values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep
from flujo.domain.steps.arguments import instead
from flujo.domain.values import Text, Value, Valued

OnFailure = Takes[
    Literal["fail", "skip"] | Mapping[str, Valued], Literal["fail", "skip"] | Mapping[str, Value]
]


@node
class AwaitStep(BaseStep[Any, Any]):
    """Waits for background tasks of the run; its output is the result of one, or of several by name."""

    kind: ClassVar[str] = "await"
    only_waits: ClassVar[str] = "waits for background tasks"

    _: KW_ONLY
    task: Takes[Valued, Value] = takes(values.value, default=None)
    """The name of a step in the background, or an expression that returns a task id."""
    tasks: Takes[Valued, Value] = takes(values.value, default=None)
    """Several of them; or an expression that returns a list or a map of task ids."""
    on_failure: OnFailure = takes(instead, default="fail")
    """Whether a failed task fails the step, is skipped, or is replaced by `{"output": …}`."""

    def _adapt(self, arguments: dict[str, Any]) -> None:
        self._one_of(arguments, "task", "tasks")

    def awaited(self) -> tuple[str, ...]:
        """Return the names of the steps whose tasks it waits for, without those that expressions compute."""
        several = self.tasks if isinstance(self.tasks, tuple) else (self.task,)
        return tuple(each.source.strip() for each in several if isinstance(each, Text) and is_name(each))

    def summary(self) -> str:
        """Return what it waits for."""
        several = self.tasks if isinstance(self.tasks, tuple) else (self.task or self.tasks,)
        return f"waits for {', '.join(values.one_line(each) for each in several)}"


def is_name(task: Text) -> bool:
    """Return whether a task is given by the name of its step, not by an expression."""
    return "{{" not in task.source
