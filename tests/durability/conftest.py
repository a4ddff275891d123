"""Proofs and their record: which guarantee a test proves, and what it did to try to break it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from durability.world import World
from durability.world import world as started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Evidence:
    """What a proof has done. Its numbers are added up over a run of the suite."""

    def __init__(self) -> None:
        self.faults = 0
        self.seeds = 0
        self.violations: list[str] = []

    def add(self, *, faults: int = 0, seeds: int = 0, violations: list[str] | None = None) -> None:
        """Count faults that were injected (and seen to happen), seeds that were tried, what was found wrong."""
        self.faults += faults
        self.seeds += seeds
        self.violations += violations or []


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Iterator[Evidence]:
    """Collect what this test does; it is told with the test's outcome."""
    collected = Evidence()
    yield collected
    request.node.user_properties.append(("evidence", vars(collected)))


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[World]:
    """The world outside, in a process of its own."""
    with started(tmp_path) as made:
        yield made
