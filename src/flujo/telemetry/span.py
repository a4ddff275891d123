"""A finished span, as it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Value = str | int | float | bool | Sequence[str]
"""The value of an attribute."""


class Link(NamedTuple):
    """Another span, often of another trace."""

    trace_id: int
    span_id: int


@dataclass(slots=True, kw_only=True)
class Span:
    """A finished span."""

    trace_id: int
    span_id: int
    parent_id: int | None
    """None for the span of a run."""
    name: str
    started_at: float
    """Seconds since the epoch."""
    ended_at: float
    kind: Literal["internal", "client"] = "internal"
    """`client`: a request to another service."""
    attributes: dict[str, Value] = field(default_factory=dict)
    error: str | None = None
    """Why it failed; None if it did not."""
    links: Sequence[Link] = ()

    def note(self, attributes: Mapping[str, Value | None]) -> None:
        """Add the attributes that have a value."""
        self.attributes.update({name: value for name, value in attributes.items() if value is not None})

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, self.ended_at - self.started_at)
