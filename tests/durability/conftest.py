"""Evidence for the guarantees: the faults that each marked test injects, and the violations it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from durability.world import World
from durability.world import world as started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Evidence:
    """What a test of a guarantee did; the numbers are summed over a run of the suite."""

    def __init__(self) -> None:
        self.faults = 0
        self.seeds = 0
        self.violations: list[str] = []

    def add(self, *, faults: int = 0, seeds: int = 0, violations: list[str] | None = None) -> None:
        """Count injected faults (seen to happen), tried seeds and violations."""
        self.faults += faults
        self.seeds += seeds
        self.violations += violations or []


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Iterator[Evidence]:
    """Collect the evidence of this test; it is reported with the test's outcome."""
    collected = Evidence()
    yield collected
    request.node.user_properties.append(("evidence", vars(collected)))


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[World]:
    """The outside world, in its own process."""
    with started(tmp_path) as made:
        yield made
