"""How a process recovers runs: how often it looks, how often it tries, how many at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPolicy:
    """How a process recovers orphaned runs and expired deadlines."""

    every_s: float = 5.0
    """How often it looks: one short query."""
    max_recoveries: int = 3
    """How often a run is taken over from a dead owner without any progress, before it is parked."""
    at_once: int = 10
    """How many recovered runs it executes at once."""
