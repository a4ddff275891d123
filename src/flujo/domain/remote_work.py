"""Units of work that an executor executes in other processes, as telemetry shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

RAN = "ran"
"""The key of an entry's `detail` that says where the units of its attempt were executed: a list."""

MOST_RECORDED = 20
"""The maximum number of units of an attempt that its entry names: an agent may call many tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteWork:
    """A unit whose answer has arrived, with its output or its failure."""

    executor: str
    """Its name in flujo.toml."""
    host: str
    """The host of the worker."""
    pid: int
    """The process of the worker."""
    ended_at: float
    """When the answer arrived here, in seconds since the epoch."""
    seconds: float
    """How long the worker executed it, by its own clock."""
    error: str | None = None
    """The class of the exception, if the callable has raised."""
    number: int = 0
    """Counts the units that the attempt has sent, from 1."""

    def to_json(self) -> dict[str, Any]:
        """Return where it was executed, and for how long, for the journal."""
        seconds = round(self.seconds, 3)
        return {"executor": self.executor, "host": self.host, "pid": self.pid, "seconds": seconds}


class RemoteWorkListener(Protocol):
    """Learns of the units that the current code sends to workers."""

    def sent(self) -> tuple[int, str | None]:
        """Take note that a unit is sent; return its number and the W3C `traceparent` of its span.

        There is no `traceparent` without telemetry.
        """
        ...

    def answered(self, work: RemoteWork) -> None:
        """Take note of a unit whose answer has arrived."""
        ...
