"""The runs that a principal is limited to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Reach:
    """The runs that a principal is limited to. A condition that is empty does not count."""

    blueprints: tuple[str, ...] = ()
    """One of which must be the name of the run's blueprint."""
    queues: tuple[str, ...] = ()
    """One of which the run must have been submitted to."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Values that its metadata must have."""

    def __bool__(self) -> bool:
        return bool(self.blueprints or self.queues or self.metadata)

    def has(self, pipeline: str, queue: str | None, metadata: Mapping[str, Any]) -> bool:
        """Return whether a run with this blueprint, queue and metadata fulfils every condition."""
        return (
            (not self.blueprints or pipeline in self.blueprints)
            and (not self.queues or queue in self.queues)
            and all(metadata.get(key) == value for key, value in self.metadata.items())
        )

    def to_json(self) -> dict[str, Any]:
        """Return the conditions that are given."""
        data = {
            "blueprints": list(self.blueprints),
            "queues": list(self.queues),
            "metadata": dict(self.metadata),
        }
        return {name: value for name, value in data.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reach:
        """Return what `to_json` has written."""
        return cls(
            tuple(data.get("blueprints", ())), tuple(data.get("queues", ())), dict(data.get("metadata", {}))
        )


EVERYWHERE = Reach()
"""Every run."""
