"""The recovery policy of a process: polling interval, attempts and concurrency."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPolicy:
    """How a process recovers orphaned runs and expired deadlines."""

    every_s: float = 5.0
    """Seconds between polls; a poll is one short query."""
    max_recoveries: int = 3
    """How often a run is recovered without progress before it is parked."""
    at_once: int = 10
    """How many recovered runs execute concurrently."""
