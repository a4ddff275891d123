"""What differs between the record of a run and what its pipeline computes now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from flujo.domain.paths import StepPath

Cause = Literal[
    "decision",
    "input",
    "prompt",
    "model",
    "instructions",
    "schema",
    "tools",
    "kind",
    "output",
    "context",
    "new step",
    "lost step",
    "end",
]
"""What differs: a decision, the input of a step, a part of an agent, an output, or the steps themselves."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. The values are JSON data."""

    path: StepPath
    cause: Cause
    expected: Any
    """The recorded value."""
    got: Any
    """The value now."""
    expression: str = ""
    """Of a decision, the expression that decides."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        data: dict[str, Any] = {
            "path": self.path,
            "cause": self.cause,
            "expected": self.expected,
            "got": self.got,
        }
        return data | ({"expression": self.expression} if self.expression else {})
